"""The FHIR R4 adapter of the import hook: each link becomes resources on the patient's chart (docs/fhir.md).

What is made, and how it stays single, says :mod:`gateway.importers.fhir.resources`: every create carries the condition
that nothing with its identifier is there (``If-None-Exist``), so that an attempt whose answer was lost makes nothing
twice, and one that was cut off goes on where it ended. Where the server can, documents and Communication are made in
one transaction; else one after the other, documents first, so that what refers comes after what it refers to.

A crash of the gateway, at any step, is such an attempt: the link is asked for again, and what is there is found. What
the server did not take before it refused stays undone, and what it took stays: a retry after the mend completes it.

Two calls for one link never overlap in this process. Two nodes do not hold one delivery at the same time; a server
without conditional creates is searched first, and could only be given two of a kind by a request of ours that it goes
on working on after the connection has ended.

Failure modes: ImportFailedError and ImportRefusedError, whose texts hold no PHI.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from gateway.core.errors import ImportFailedError, ImportRefusedError
from gateway.core.import_settings import ImporterSettings
from gateway.importers.documents import encoded
from gateway.importers.fhir.access_tokens import AccessTokens, AssertionKey
from gateway.importers.fhir.capabilities import (
    BINARY,
    COMMUNICATION,
    DOCUMENT,
    PROVENANCE,
    Capabilities,
    TypeCapabilities,
)
from gateway.importers.fhir.patients import assumed_reference, patient_reference
from gateway.importers.fhir.resources import (
    Item,
    Plan,
    Reference,
    bundle_of,
    communication_of,
    logical,
    named_in,
    plain_reference,
    plan_of,
    provenance_of,
    resource_id,
)
from gateway.importers.fhir.retraction import take_back
from gateway.importers.fhir.server import FHIR_JSON, FHIRServer, located
from gateway.ports import (
    CHECK_DEGRADED,
    IMPORTER_API_VERSION,
    MAX_RECEIPT_CHARS,
    Clock,
    ImporterCapabilities,
    ImportPreview,
    ImportRequest,
    Retraction,
)

MAY_GO_ON = timedelta(seconds=60)
"""For so long after an undo, an import whose answer was lost may still come to its end at the server."""
_NETWORK_THREADS = 2
_MINIMAL = {"prefer": "return=minimal"}
_FULL = Capabilities(
    {
        kind: TypeCapabilities(frozenset({"create", "update"}), conditional_create=True, update_create=kind == BINARY)
        for kind in (DOCUMENT, COMMUNICATION, BINARY)
    },
    transaction=True,
)


class FHIRImporter:
    """A :class:`gateway.ports.PatientImporter` that creates FHIR resources."""

    def __init__(self, settings: ImporterSettings, clock: Clock, read_key: Callable[[Path], AssertionKey]) -> None:
        """``read_key``: reads the private key of SMART Backend Services; raises ConfigurationError."""
        self._settings, self._clock = settings, clock
        self._network = ThreadPoolExecutor(_NETWORK_THREADS, thread_name_prefix=f"fhir-net-{settings.name}")
        self._work = ThreadPoolExecutor(1, thread_name_prefix=f"fhir-{settings.name}")
        tokens = AccessTokens(settings, clock, read_key, self._network)
        self._server = FHIRServer(settings, clock, tokens, self._network, self._work)
        self._at_work: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @property
    def name(self) -> str:
        return self._settings.name

    @property
    def api_version(self) -> int:
        return IMPORTER_API_VERSION

    @property
    def capabilities(self) -> ImporterCapabilities:
        return ImporterCapabilities(retract=True, preview=True, content=True)

    async def import_message(self, request: ImportRequest) -> str:
        """Create what is not there yet, and name it. Raises ImportFailedError, ImportRefusedError."""
        async with self._alone(request.link.id):
            able = await self._server.capabilities()
            if not able.documents:
                raise ImportRefusedError("the server takes no DocumentReference", reason="no_document_create")
            system = self._settings.patient_identifier_system
            subject = await patient_reference(self._server, able, request.patient, system)
            plan = await self._server.in_thread(lambda: plan_of(request, subject, able))
            for made, binary in plan.binaries.items():
                await self._put(BINARY, made, binary)
            create = self._in_one if able.in_one else self._one_by_one
            ids = await create(request, subject, plan, able)
            binaries = [f"{BINARY}/{made}" for made in plan.binaries]
            return _receipt(ids, [*await self._provenance(request, ids, binaries, able), *binaries])

    async def retract(self, retraction: Retraction) -> str:
        """Mark everything as entered in error. Raises ImportFailedError, ImportRefusedError."""
        async with self._alone(retraction.request.link.id):
            marked = await take_back(self._server, await self._server.capabilities(), retraction)
            if marked:
                return _named("entered-in-error:", marked)
            if not retraction.receipt and self._clock.now() - retraction.retracted_at < MAY_GO_ON:
                raise ImportFailedError("an import without an answer may go on there", reason="nothing_there_yet")
            return f"nothing there: {retraction.key}"

    async def check(self) -> str | None:
        """Get a token, read what the server can do, and tell what will be left out. Nothing is made."""
        self._server.forget_capabilities()
        try:
            able = await self._server.capabilities()
        except ImportFailedError as exc:
            return f"{exc} ({exc.reason})"
        if not able.documents:
            return "the server takes no DocumentReference that can be found again (no_document_create)"
        missing = able.missing()
        return f"{CHECK_DEGRADED}{'; '.join(missing)}" if missing else None

    async def preview(self, request: ImportRequest) -> ImportPreview:
        """The resources for a server that can do everything, as one transaction. Raises ImportRefusedError."""
        subject = assumed_reference(request.patient, self._settings.patient_identifier_system)

        def made() -> bytes:
            plan = plan_of(request, subject, _FULL)
            bundle = bundle_of(_entries(request, subject, plan, _FULL))
            bundle["entry"] += [
                {"resource": binary, "request": {"method": "PUT", "url": f"{BINARY}/{name}"}}
                for name, binary in plan.binaries.items()
            ]
            targets = [{"reference": entry["fullUrl"]} for entry in bundle["entry"] if "fullUrl" in entry]
            provenance = provenance_of(request, targets, [{"reference": plan.documents[0].full_url}])
            bundle["entry"].append({"resource": provenance, "request": {"method": "POST", "url": PROVENANCE}})
            return encoded(bundle)

        return ImportPreview(FHIR_JSON, await self._server.in_thread(made))

    async def close(self) -> None:
        """Let the threads go. A name server that hangs is not waited for."""
        self._network.shutdown(wait=False)
        self._work.shutdown(wait=False)

    @asynccontextmanager
    async def _alone(self, link_id: str) -> AsyncIterator[None]:
        lock = self._at_work.setdefault(link_id, asyncio.Lock())
        async with lock:
            try:
                yield
            except (ImportFailedError, ImportRefusedError):
                # A mend on the other side may show in what it says of itself.
                self._server.forget_capabilities()
                raise

    # --- creating ---

    async def _in_one(
        self, request: ImportRequest, subject: Reference, plan: Plan, able: Capabilities
    ) -> dict[Item, str]:
        entries = _entries(request, subject, plan, able)
        answer = await self._server.ask("POST", "", bundle_of(entries), headers=_MINIMAL)
        if answer.status not in {200, 201}:
            raise self._server.nack(answer)
        told = (answer.document or {}).get("entry")
        if not isinstance(told, list) or len(told) != len(entries):
            raise ImportFailedError("the answer does not fit the transaction", reason="bad_answer")
        ids = {}
        for (item, _), one in zip(entries, told, strict=True):
            response = one.get("response") if isinstance(one, dict) else None
            response = response if isinstance(response, dict) else {}
            if not str(response.get("status", "")).startswith("20"):
                raise ImportFailedError("the answer does not fit the transaction", reason="bad_answer")
            found = located(str(response.get("location", "")), item.kind)
            ids[item] = found or await self._found(item.kind, item.condition)
            if not str(response["status"]).startswith("201"):
                await self._is_on_this_chart(item.kind, ids[item], item.resource)
        return ids

    async def _one_by_one(
        self, request: ImportRequest, subject: Reference, plan: Plan, able: Capabilities
    ) -> dict[Item, str]:
        ids = {item: await self._create(item, able) for item in plan.documents}

        def refer(item: Item) -> Reference:
            return {"reference": f"{item.kind}/{ids[item]}"} if ids[item] else logical(item)

        if able.communications:
            item = communication_of(request, subject, plan.documents, refer)
            ids[item] = await self._create(item, able)
        return ids

    async def _create(self, item: Item, able: Capabilities) -> str:
        return await self._create_if_none(item.kind, item.resource, item.condition, able)

    async def _create_if_none(self, kind: str, resource: Mapping[str, Any], condition: str, able: Capabilities) -> str:
        """The id of the resource; nothing when the server has accepted it for later (202)."""
        headers = dict(_MINIMAL)
        if able.of(kind).conditional_create:
            headers["if-none-exist"] = condition
        elif there := await self._search(kind, condition):
            await self._is_on_this_chart(kind, there[0], resource)
            return there[0]
        answer = await self._server.ask("POST", kind, resource, headers=headers)
        if answer.status == 202:
            return ""
        if answer.status not in {200, 201}:
            raise self._server.nack(answer)
        made = answer.id_of(kind) or await self._found(kind, condition)
        if answer.status == 200:
            await self._is_on_this_chart(kind, made, resource)
        return made

    async def _is_on_this_chart(self, kind: str, made: str, resource: Mapping[str, Any]) -> None:
        """What an earlier attempt has made may be on the chart that the patient's number led to then.

        Raises:
            ImportRefusedError: it is: the link must be undone, which takes all of it back.
            ImportFailedError: it cannot be told now.
        """
        if "subject" not in resource:
            return
        answer = await self._server.ask("GET", f"{kind}/{made}")
        if answer.status in {403, 404, 410}:
            # It may not be read, or somebody has removed it: it was made, and that is all that can be said.
            return
        if answer.status != 200 or answer.document is None or answer.document.get("resourceType") != kind:
            raise self._server.nack(answer)
        subject = answer.document.get("subject")
        there = str(subject.get("reference", "")) if isinstance(subject, dict) else ""
        if there and plain_reference(there) != plain_reference(str(resource["subject"].get("reference", ""))):
            raise ImportRefusedError("what an earlier attempt made is on another chart", reason="other_chart")

    async def _found(self, kind: str, condition: str) -> str:
        """The id of what the server says is there, without saying which."""
        there = await self._search(kind, condition)
        if not there:
            raise ImportFailedError("the server does not say what it has made", reason="bad_answer")
        return there[0]

    async def _search(self, kind: str, condition: str) -> list[str]:
        name, _, value = condition.partition("=")
        query = {name: value, "_elements": name}
        found = await self._server.search(kind, query, lambda one: value in named_in(one, name))
        ids = {made: None for one in found if (made := located(f"{kind}/{one.get('id', '')}", kind))}
        if len(ids) > 1:
            raise ImportRefusedError("the server has several resources for this link", reason="several_matches")
        return list(ids)

    async def _put(self, kind: str, made: str, resource: Mapping[str, Any]) -> None:
        answer = await self._server.ask("PUT", f"{kind}/{made}", {**resource, "id": made}, headers=_MINIMAL)
        if answer.status not in {200, 201, 202, 204}:
            raise self._server.nack(answer)

    async def _provenance(
        self, request: ImportRequest, ids: Mapping[Item, str], binaries: Sequence[str], able: Capabilities
    ) -> list[str]:
        first = ids[next(item for item in ids if item.kind == DOCUMENT)]
        if not able.provenance_by or not first:
            return []
        source = f"{DOCUMENT}/{first}"
        targets = [{"reference": f"{item.kind}/{made}"} for item, made in ids.items() if made]
        original = resource_id(f"{request.link.id}.original")
        sources = [source, *(name for name in binaries if name == f"{BINARY}/{original}")]
        resource = provenance_of(request, targets, [{"reference": one} for one in sources])
        if able.provenance_by == "put":
            made = resource_id(f"{request.link.id}.provenance")
            await self._put(PROVENANCE, made, resource)
        else:
            made = await self._create_if_none(PROVENANCE, resource, f"{able.provenance_by}={source}", able)
        return [f"{PROVENANCE}/{made}"] if made else []


def _entries(
    request: ImportRequest, subject: Reference, plan: Plan, able: Capabilities
) -> list[tuple[Item, Mapping[str, Any]]]:
    """The parts of a transaction; they refer to each other by their names within it."""
    items = list(plan.documents)
    if able.communications:
        items.append(communication_of(request, subject, plan.documents, lambda item: {"reference": item.full_url}))
    return [(item, item.resource) for item in items]


def _receipt(ids: Mapping[Item, str], further: Sequence[str]) -> str:
    made = [f"{item.kind}/{found}" if found else f"accepted/{item.key}" for item, found in ids.items()]
    return _named("", [*made, *further])


def _named(head: str, references: Sequence[str]) -> str:
    """The references, as many as a receipt holds, and how many more there are."""
    shown = head
    for number, reference in enumerate(references):
        longer = f"{shown} {reference}".strip()
        if len(longer) > MAX_RECEIPT_CHARS - len(" +99999"):
            return f"{shown} +{len(references) - number}"
        shown = longer
    return shown
