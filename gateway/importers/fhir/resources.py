"""A linked message as FHIR R4 resources (ehr-integration 2.4, docs/fhir.md). Pure.

Every resource is a function of the link and of what was mailed alone: a repeated attempt makes the same ones. Each has
an identifier of ours, made from the id of the link, by which it is created only if it is not there:

=====================  ==========================  ==================================================================
resource               identifier                  what it holds
=====================  ==========================  ==================================================================
Binary                 its id: ``dg-LINK-...``     the original message, and documents too large to stand in JSON
DocumentReference      ``LINK.original``           the message as it was verified (``message/rfc822``)
DocumentReference      ``LINK.1`` and so on        each document that was attached
DocumentReference      ``LINK.text``               the text, where the server knows no Communication
Communication          ``LINK``                    who, to whom, when, the text, and the documents by reference
Provenance             found by its entity         that all of it comes from this message and its sender
=====================  ==========================  ==================================================================

Bytes stay bytes here; they become base64 when the JSON is written (:func:`gateway.importers.documents.encoded`).
Texts of strangers are freed of what a FHIR string must not hold; a file name becomes a title without its folders.

Failure modes: none; what cannot be said is left out.
"""

from __future__ import annotations

import base64
import hashlib
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

from gateway.importers.fhir.capabilities import BINARY, COMMUNICATION, DOCUMENT, PROVENANCE, Capabilities
from gateway.importers.fhir.cda_header import CDAHeader, read_cda_header
from gateway.ports import ImportRequest, MessagePart

SYSTEM = "urn:uuid:8b0c6f6e-6f0a-4c52-9d0c-2f1f4b7a3e51"
"""Whose our identifiers are. A UUID made for this: no name space had to be registered for it."""
URI_SYSTEM = "urn:ietf:rfc:3986"
INLINE_BYTES = 5 * 1024 * 1024
"""What a server takes inside a resource at least (US Core, writing clinical notes)."""
MAX_TEXT_CHARS = 1_000_000
"""A FHIR string has at most 1 MiB."""
MAX_LINE_CHARS = 200
SUMMARY_NOTE, NOTE = "34133-9", "34109-9"
"""LOINC: summarization of episode note; note."""
_TERMS = "http://terminology.hl7.org/CodeSystem"
_NAMESPACE = uuid.UUID(SYSTEM.removeprefix("urn:uuid:"))
_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,63}/[a-z0-9][a-z0-9!#$&^_.+-]{0,63}\Z", re.ASCII)
_NOT_IN_A_STRING = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_REFERENCE = re.compile(r"(?:\A|/)([A-Za-z]{1,64}/[A-Za-z0-9.-]{1,64})(?:/_history/[A-Za-z0-9.-]{1,64})?\Z", re.ASCII)
_SPACES = re.compile(r"\s+")

Reference = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Content:
    """The bytes of a document, and what is said of them."""

    data: bytes
    content_type: str
    title: str
    header: CDAHeader


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """A resource to be made once. Each is equal to itself only."""

    key: str
    """Its identifier under :data:`SYSTEM`."""
    resource: Mapping[str, Any]

    @property
    def kind(self) -> str:
        return str(self.resource["resourceType"])

    @property
    def condition(self) -> str:
        """The search that finds it: what follows the question mark."""
        return f"identifier={SYSTEM}|{self.key}"

    @property
    def full_url(self) -> str:
        """Its name within a Bundle."""
        return f"urn:uuid:{uuid.uuid5(_NAMESPACE, self.key)}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is made of a message, in this order."""

    binaries: Mapping[str, Mapping[str, Any]]
    """By id."""
    documents: tuple[Item, ...]
    """The first one is the original message, or the part of it that was linked."""


def plan_of(request: ImportRequest, subject: Reference, able: Capabilities) -> Plan:
    """The Binaries and DocumentReferences of a message. ``subject``: the reference to the patient."""
    binaries: dict[str, Mapping[str, Any]] = {}

    def document(key: str, content: _Content, *, apart: bool = False) -> Item:
        attachment: dict[str, Any] = {}
        if able.binaries and (apart or len(content.data) > INLINE_BYTES):
            made = resource_id(key)
            binaries[made] = _binary(made, content, subject)
            attachment["url"] = f"{BINARY}/{made}"
        elif content.data:
            # Nothing is no base64Binary.
            attachment["data"] = content.data
        return _document(request, key, subject, content, attachment)

    link = request.link.id
    note = CDAHeader(loinc=NOTE)
    documents = []
    # A link of one part brings no message around it.
    if request.content:
        original = _Content(request.content, "message/rfc822", "Original message", note)
        documents.append(document(f"{link}.original", original, apart=True))
    for number, part in enumerate(attached(request), start=1):
        header = read_cda_header(part.data)
        content = _Content(part.data, content_type_of(part, header), title_of(part), header or CDAHeader())
        documents.append(document(f"{link}.{number}", content))
    if not able.communications and (text := string(request.text)):
        content = _Content(text.encode(), "text/plain", "Text of the message", note)
        documents.append(document(f"{link}.text", content))
    return Plan(binaries, tuple(documents))


def communication_of(
    request: ImportRequest, subject: Reference, documents: Sequence[Item], refer: Callable[[Item], Reference]
) -> Item:
    """The Communication. ``refer`` gives the reference to a document that was made, or will be."""
    payload: list[dict[str, Any]] = [{"contentReference": refer(item)} for item in documents]
    if text := string(request.text):
        payload.insert(0, {"contentString": text})
    identifiers = [_identifier(request.link.id)]
    if named := request.rfc822_message_id.strip().strip("<>"):
        identifiers.append({"system": URI_SYSTEM, "value": f"mid:{quote(named, safe='@!$&+=._~-', errors='replace')}"})
    resource = {
        "resourceType": COMMUNICATION,
        "identifier": identifiers,
        "status": "completed",
        "category": [{"text": "Direct message"}],
        "medium": [{"coding": [{"system": f"{_TERMS}/v3-ParticipationMode", "code": "EMAILWRIT"}]}],
        "subject": subject,
        "topic": {"text": line(request.subject) or "Direct message"},
        "sent": instant(request.sent_at),
        "received": instant(request.received_at),
        "recipient": [_person(address) for address in request.recipients],
        "sender": _person(request.sender),
        "payload": payload,
    }
    return Item(request.link.id, _filled(resource | _label(request)))


def provenance_of(request: ImportRequest, targets: Sequence[Reference], sources: Sequence[Reference]) -> dict[str, Any]:
    """The Provenance of all that was made; its sources are the original message, or the part that was linked."""
    roles = f"{_TERMS}/provenance-participant-type"
    return {
        "resourceType": PROVENANCE,
        "target": list(targets),
        "occurredDateTime": instant(request.received_at),
        "recorded": instant(request.link.linked_at),
        "agent": [
            {"type": {"coding": [{"system": roles, "code": "author"}]}, "who": _person(request.sender)},
            {
                "type": {"coding": [{"system": roles, "code": "assembler"}]},
                "who": {"type": "Device", "identifier": _identifier("direct-gateway"), "display": "direct-gateway"},
            },
        ],
        "entity": [{"role": "source", "what": source} for source in sources],
    }


def keys_of(request: ImportRequest) -> list[str]:
    """The identifiers of every DocumentReference that may have been made of a message."""
    link = request.link.id
    return [f"{link}.original", f"{link}.text", *(f"{link}.{n}" for n in range(1, len(attached(request)) + 1))]


def bundle_of(entries: Sequence[tuple[Item, Mapping[str, Any]]]) -> dict[str, Any]:
    """A transaction that makes each of them if it is not there."""
    return {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            {
                "fullUrl": item.full_url,
                "resource": resource,
                "request": {"method": "POST", "url": item.kind, "ifNoneExist": item.condition},
            }
            for item, resource in entries
        ],
    }


def named_in(resource: Mapping[str, Any], name: str) -> set[str]:
    """What a resource can be found by: its identifiers as ``system|value``, or its entities or targets.

    A server may keep a reference in another form than it was given: see :func:`plain_reference`.
    """
    told = resource.get(name)
    every = [one for one in told if isinstance(one, Mapping)] if isinstance(told, list) else []
    if name == "identifier":
        return {f"{one.get('system')}|{one.get('value')}" for one in every}
    referred = (one.get("what", one) for one in every)
    told_as = (str(one.get("reference")) for one in referred if isinstance(one, Mapping))
    return {plain_reference(one) for one in told_as}


def plain_reference(text: str) -> str:
    """``Type/id`` of a reference that may be absolute, and have a version."""
    found = _REFERENCE.search(text)
    return found[1] if found is not None else text


def resource_id(key: str) -> str:
    """The id of a resource that is made by PUT: the same for the same key."""
    return f"dg-{key.replace('.', '-')}"


def logical(item: Item) -> Reference:
    """A reference by identifier: for what has no id that we know."""
    return {"type": item.kind, "identifier": _identifier(item.key)}


# --- the pieces ---


def _binary(made: str, content: _Content, subject: Reference) -> dict[str, Any]:
    resource = {"resourceType": BINARY, "id": made, "contentType": content.content_type, "securityContext": subject}
    return resource | ({"data": content.data} if content.data else {})


def _document(
    request: ImportRequest, key: str, subject: Reference, content: _Content, where: Mapping[str, Any]
) -> Item:
    header = content.header
    attachment = {
        "contentType": content.content_type,
        "size": len(content.data),
        # SHA-1 is what R4 has in this field (Attachment.hash); nothing rests on it.
        "hash": base64.b64encode(hashlib.sha1(content.data, usedforsecurity=False).digest()).decode("ascii"),
        "title": content.title,
        "creation": header.created,
        **where,
    }
    category = "http://hl7.org/fhir/us/core/CodeSystem/us-core-documentreference-category"
    resource = {
        "resourceType": DOCUMENT,
        "masterIdentifier": _master(content),
        "identifier": [_identifier(key)],
        "status": "current",
        "type": {"coding": [{"system": "http://loinc.org", "code": header.loinc or SUMMARY_NOTE}]},
        "category": [{"coding": [{"system": category, "code": "clinical-note"}]}],
        "subject": subject,
        "date": instant(request.received_at),
        "author": [_person(request.sender)],
        "description": line(request.subject),
        "content": [{"attachment": _filled(attachment)}],
        # By identifier: the Communication refers to this one, and one of the two is made first.
        "context": {"related": [{"type": COMMUNICATION, "identifier": _identifier(request.link.id)}]},
    }
    return Item(key, _filled(resource | _label(request)))


def _master(content: _Content) -> dict[str, str]:
    """What the document is called everywhere: its own id, or the name of its content (RFC 6920)."""
    header = content.header
    # What a sender writes under our system would be found in place of what we make: it is searched along.
    ours = header.id_root == SYSTEM
    if header.id_extension and not ours:
        return {"system": header.id_root, "value": header.id_extension}
    if header.id_root and not ours:
        return {"system": URI_SYSTEM, "value": header.id_root}
    digest = base64.urlsafe_b64encode(hashlib.sha256(content.data).digest()).decode("ascii").rstrip("=")
    return {"system": URI_SYSTEM, "value": f"ni:///sha-256;{digest}"}


def _identifier(key: str) -> dict[str, str]:
    return {"system": SYSTEM, "value": key}


def _person(address: str) -> Reference:
    """By address: whose it is in the EHR is not ours to say."""
    shown = line(address)
    return {"identifier": {"system": URI_SYSTEM, "value": f"mailto:{quote(shown, safe='@!$&+=._~-')}"},
            "display": shown} if shown else {"display": "unknown"}  # fmt: skip


def _label(request: ImportRequest) -> dict[str, Any]:
    """*Patient asserted* (US Core, writing clinical notes) when the sender is documented for this patient."""
    if request.sender.lower() not in {address.lower() for address in request.patient.direct_addresses}:
        return {}
    return {"meta": {"security": [{"system": f"{_TERMS}/v3-ObservationValue", "code": "PATAST"}]}}


def attached(request: ImportRequest) -> list[MessagePart]:
    """Every part but the text of the message, plain and as HTML: that stands in the Communication and the original."""
    words = request.text.split()

    def is_text(part: MessagePart) -> bool:
        if part.filename or not words:
            return False
        same = part.content_type == "text/plain" and part.data.decode("utf-8", "replace").split() == words
        return same or part.content_type == "text/html"

    return [part for part in request.parts if not is_text(part)]


def content_type_of(part: MessagePart, header: CDAHeader | None) -> str:
    """A C-CDA is XML, whatever its sender called it."""
    told = part.content_type.lower().strip()
    if header is not None and not told.endswith("/xml"):
        return "text/xml"
    return told if _TYPE.match(told) else "application/octet-stream"


def title_of(part: MessagePart) -> str:
    """The file name without its folders."""
    return line(re.split(r"[/\\]", part.filename)[-1]) or "Attachment"


def line(text: str) -> str:
    """One line of a FHIR string."""
    return (
        _SPACES.sub(" ", _NOT_IN_A_STRING.sub("\ufffd", text[: 10 * MAX_LINE_CHARS])).strip()[:MAX_LINE_CHARS].strip()
    )


def string(text: str) -> str:
    """A FHIR string. What is cut off of a very long one stands in the original message."""
    clean = text[:MAX_TEXT_CHARS].replace("\r\n", "\n")
    return _NOT_IN_A_STRING.sub("\ufffd", clean).strip()


def instant(moment: datetime | None) -> str:
    """A FHIR instant, or nothing."""
    return "" if moment is None else moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _filled(resource: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is empty: FHIR has no empty elements. A size of zero is not empty."""
    return {key: value for key, value in resource.items() if value not in ("", [], {}, None)}
