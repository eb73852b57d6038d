"""The ``import`` step: hands a linked message to every importer, and remembers who has it.

The importers are called outside any transaction, because their other side may be slow or gone; each receipt is one
transaction of its own, and so is the end of the job. A crash between an importer's work and its receipt calls the
importer again with the same link id, which by its contract changes nothing (promise 5: outward at least once, with a
stable id).

Guarantees: an importer that has given its receipt is not called again for that link; one that fails does not keep
the others from being called. Failure modes: ``ImportFailedError`` when an importer failed or took too long (the
worker tries again by its schedule); its text names the importer and the kind of error, never a path or a patient.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from gateway.core.errors import ImportFailedError, StoreError
from gateway.core.mime.headers import scan_headers
from gateway.ports import Clock, ImportRequest, Job, MessagePart, PatientImporter, Store, UnitOfWork

ACTOR = "gateway"
TIMEOUT_SECONDS = 120.0
"""For one importer; shorter than the lease of the job, so that attempts do not overlap."""


@dataclass(frozen=True, slots=True)
class MessageView:
    """What an importer gets besides the bytes."""

    text: str = ""
    """The main text of the message, for people."""
    parts: tuple[MessagePart, ...] = ()
    """Every leaf part, decoded."""


@dataclass(frozen=True, slots=True)
class _Due:
    """What is to be imported, and by whom it was."""

    request: ImportRequest
    receipts: dict[str, str]


class ImportLinked:
    """Runs ``import`` jobs, whose subject is the link id."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        importers: Sequence[PatientImporter],
        parts: Callable[[bytes], MessageView],
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        """``parts`` takes a message apart; it is called in a thread and must not raise for what the message holds.

        Raises:
            ValueError: two importers have the same name, so that their receipts could not be told apart.
        """
        if len({importer.name for importer in importers}) != len(importers):
            raise ValueError("importers need different names")
        self._store = store
        self._clock = clock
        self._importers = tuple(importers)
        self._parts = parts
        self._timeout_seconds = timeout_seconds

    async def __call__(self, job: Job) -> None:
        """Run one job.

        Raises:
            ImportFailedError: at least one importer did not take the message.
            StoreError: the lease was lost, a commit failed, or the stored bytes are damaged.
            NotFoundError: there is no such link.
        """
        due = await self._store.read(lambda tx: _due(tx, job.subject))
        waiting = [importer for importer in self._importers if importer.name not in due.receipts]
        if waiting:
            request = await asyncio.to_thread(self._complete, due.request)
            failures: list[ImportFailedError] = []
            for importer in waiting:
                try:
                    receipt = await self._call(importer, request)
                except ImportFailedError as exc:
                    failures.append(exc)
                else:
                    await self._remember(request, importer.name, receipt)
            if failures:
                raise failures[0]
        await self._store.write(lambda tx: _finish(tx, job))

    def _complete(self, request: ImportRequest) -> ImportRequest:
        view = self._parts(request.content)
        return replace(request, sent_at=sent_at(request.content), text=view.text, parts=view.parts)

    async def _call(self, importer: PatientImporter, request: ImportRequest) -> str:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await importer.import_message(request)
        except Exception as exc:
            # Whatever a plug-in raises means the same here: not imported, try again. Its text may hold PHI.
            raise ImportFailedError(f"importer {importer.name} failed: {type(exc).__name__}") from exc

    async def _remember(self, request: ImportRequest, importer: str, receipt: str) -> None:
        at, link = self._clock.now(), request.link

        def work(tx: UnitOfWork) -> None:
            if importer in tx.links.receipts(link.id):
                return
            tx.links.add_receipt(link.id, importer, receipt, at)
            tx.audit.add(at, ACTOR, "message.imported", link.message_id, {"link": link.id, "importer": importer})

        await self._store.write(work)


def sent_at(content: bytes) -> datetime | None:
    """The Date field in UTC, or None when it is missing or unreadable; a zone of ``-0000`` counts as UTC."""
    try:
        moment = parsedate_to_datetime(scan_headers(content).text(b"date"))
        aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
        return aware.astimezone(UTC)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _due(tx: UnitOfWork, link_id: str) -> _Due:
    link = tx.links.get(link_id)
    content = tx.messages.content(link.message_id)
    request = ImportRequest(
        link=link,
        patient=tx.patients.get(link.patient_id),
        sender=content.sender,
        recipients=content.delivered_to,
        subject=content.subject,
        sent_at=None,
        received_at=tx.messages.raw(link.message_id).received_at,
        rfc822_message_id=content.rfc822_message_id,
        content_sha256=content.content_sha256,
        content=content.content,
        text="",
    )
    return _Due(request, tx.links.receipts(link_id))


def _finish(tx: UnitOfWork, job: Job) -> None:
    if not tx.jobs.finish(job):
        raise StoreError("the lease of the import job was lost")
