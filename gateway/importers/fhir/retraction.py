"""Taking an import back at a FHIR server: every DocumentReference and Communication becomes ``entered-in-error``.

What was made is found by our identifiers, and by the receipt where the server cannot be searched; a resource that has
no identifier of this link is not touched, whatever the receipt says. A resource that is marked already, or was removed
by somebody else, is left as it is, so that a repeated retraction changes nothing. The status is changed under the
version that was read (``If-Match``): what somebody wrote meanwhile is read again and kept. Binary and Provenance have
no status in R4; they stay, and are reached through marked resources only.

One that the server refuses to change keeps no other from being marked; the refusal is told at the end. What was
accepted for later (202) and is not there yet is waited for by the schedule of the target.

A crash between two of them leaves some marked; the retraction is asked for again, and the rest follows.

Failure modes: ImportFailedError (``not_there_yet``), ImportRefusedError (``cannot_retract``, ``cannot_find``,
``not_ours``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gateway.core.errors import ImportFailedError, ImportRefusedError
from gateway.importers.fhir.capabilities import COMMUNICATION, DOCUMENT, JSON_PATCH, Capabilities
from gateway.importers.fhir.resources import SYSTEM, keys_of, line, named_in
from gateway.importers.fhir.server import Answer, FHIRServer, located
from gateway.ports import Retraction

ENTERED_IN_ERROR = "entered-in-error"
_ETAG = re.compile(r'(?:W/)?"[!#-~]{0,200}"\Z', re.ASCII)
_KEYS_AT_ONCE = 20
_ACCEPTED = "accepted/"
_ATTEMPTS = 3
_DONE = frozenset({200, 201, 202, 204})


async def take_back(server: FHIRServer, able: Capabilities, retraction: Retraction) -> list[str]:
    """Mark everything that was made for the link; return the references, in a fixed order.

    Raises:
        ImportFailedError: try again.
        ImportRefusedError: the server changes nothing, cannot be searched, or a resource is not ours.
    """
    request = retraction.request
    marked = []
    hidden = False
    refusal: ImportRefusedError | None = None
    accepted = {word.removeprefix(_ACCEPTED) for word in retraction.receipt.split() if word.startswith(_ACCEPTED)}
    for kind, keys in ((COMMUNICATION, [request.link.id]), (DOCUMENT, keys_of(request))):
        ids = set(filter(None, (located(word, kind) for word in retraction.receipt.split())))
        if able.of(kind).found_by("identifier"):
            for begin in range(0, len(keys), _KEYS_AT_ONCE):
                found = await _searched(server, kind, keys[begin : begin + _KEYS_AT_ONCE])
                ids |= {made for _, made in found}
                accepted -= {key for key, _ in found}
        elif (kind == DOCUMENT or "create" in able.of(kind).interactions) and not _is_whole(retraction.receipt):
            # Documents are made by every import, whatever the server says by now.
            hidden = True
        for made in sorted(ids):
            try:
                await _mark(server, able, retraction, f"{kind}/{made}")
            except ImportRefusedError as exc:
                refusal = refusal or exc
            else:
                marked.append(f"{kind}/{made}")
    if refusal is not None:
        raise refusal
    if hidden:
        raise ImportRefusedError("the server cannot be searched for all that was made", reason="cannot_find")
    if accepted:
        raise ImportFailedError("what was accepted for later is not there yet", reason="not_there_yet")
    return marked


def _is_whole(receipt: str) -> bool:
    """Whether a receipt names everything that was made."""
    words = receipt.split()
    return bool(words) and not any(word.startswith(("+", _ACCEPTED)) for word in words)


async def _searched(server: FHIRServer, kind: str, keys: list[str]) -> list[tuple[str, str]]:
    """(key, id) of everything that is there."""
    wanted = {f"{SYSTEM}|{key}": key for key in keys}
    query = {"identifier": ",".join(sorted(wanted)), "_elements": "identifier", "_count": str(3 * _KEYS_AT_ONCE)}
    found = await server.search(kind, query, lambda one: not named_in(one, "identifier").isdisjoint(wanted))
    return [
        (wanted[name], made)
        for one in found
        for name in named_in(one, "identifier") & set(wanted)
        if (made := located(f"{kind}/{one.get('id', '')}", kind))
    ]


async def _mark(server: FHIRServer, able: Capabilities, retraction: Retraction, reference: str) -> None:
    for _ in range(_ATTEMPTS):
        answer = await server.ask("GET", reference)
        if answer.status in {404, 410}:
            return
        found = answer.document
        if answer.status != 200 or found is None or found.get("resourceType") != reference.partition("/")[0]:
            raise server.nack(answer)
        if not _is_ours(found, retraction.request.link.id):
            raise ImportRefusedError("what the receipt names is not of this link", reason="not_ours")
        if found.get("status") == ENTERED_IN_ERROR:
            return
        changed = await _change(server, able, retraction, reference, answer)
        if changed.status in _DONE:
            return
        if changed.status not in {409, 412}:
            raise server.nack(changed)
    raise ImportFailedError("the resource is changed by others all the time", reason="conflict")


async def _change(
    server: FHIRServer, able: Capabilities, retraction: Retraction, reference: str, read: Answer
) -> Answer:
    found = read.document or {}
    kind = str(found["resourceType"])
    why: dict[str, Any] = {}
    if kind == COMMUNICATION and (text := line(retraction.reason)):
        why = {"statusReason": {"text": text}}
    version = _version(read)
    headers = {"prefer": "return=minimal", **({"if-match": version} if version else {})}
    match able.change_by(kind):
        case "patch":
            told = {"status": ENTERED_IN_ERROR, **why}
            patch = [{"op": "add", "path": f"/{name}", "value": value} for name, value in told.items()]
            return await server.ask("PATCH", reference, patch, headers={**headers, "content-type": JSON_PATCH})
        case "update":
            document = {**found, "status": ENTERED_IN_ERROR, **why}
            return await server.ask("PUT", reference, document, headers=headers)
    raise ImportRefusedError("the server changes no resource of this kind", reason="cannot_retract")


def _version(read: Answer) -> str:
    """The ETag of what was read, or the one that its version makes."""
    etag = read.headers.get("etag", "").strip()
    if _ETAG.match(etag):
        return etag
    meta = (read.document or {}).get("meta")
    version = meta.get("versionId") if isinstance(meta, Mapping) else None
    return f'W/"{version}"' if isinstance(version, str) and version.isascii() and version.isalnum() else ""


def _is_ours(found: Mapping[str, Any], link_id: str) -> bool:
    head = f"{SYSTEM}|{link_id}"
    return any(name == head or name.startswith(f"{head}.") for name in named_in(found, "identifier"))
