"""The ``file`` step: puts an accepted message into the inbox of every recipient who trusts its signer.

What IMAP answers from is computed first, outside any transaction. Then one transaction: an entry with its UID in
every mailbox of the recipients with the keywords and the view that say how the message stands
(:mod:`gateway.core.standing`), the header fields that it is shown with, if any (:mod:`gateway.pipeline.showing`), the
state ``filed``, the ``link`` job, the audit row, and the end of this job. After
the commit the change feed gets its hint.

Guarantees: a mailbox takes each content once, so running again after a crash files nothing twice, and the same
message under another encryption is shown once (F14). Only the recipients of the judgement are served.

Failure modes: a recipient without a mailbox is a fault in the configuration, not a reason to be silent. Those who
have one are served at once; the fault is audited; and the job fails until somebody mends it, or is set aside where
the operator sees it. StoreError when the lease was lost or the commit failed: nothing is filed, and it runs again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from gateway.core.errors import NotFoundError, StoreError
from gateway.core.lifecycle import JobKind, State
from gateway.core.standing import FILED, Standing
from gateway.pipeline.byte_gate import ByteGate
from gateway.pipeline.showing import Showing, keep_fields
from gateway.ports import ChangeFeed, Clock, IndexedMessage, Job, MessageIndexer, Store, StoredContent, UnitOfWork

ACTOR = "gateway"
DUPLICATE = "duplicate of content that was filed before"
"""Detail of the state of a message that nobody needs to see again. Its first word marks it in lists."""


@dataclass(slots=True)
class Filing:
    """What the transaction did."""

    uids: dict[int, int] = field(default_factory=dict)
    """New UID by mailbox."""
    present: int = 0
    """Mailboxes that had the content before."""
    homeless: int = 0
    """Recipients without a mailbox."""
    links: bool = False
    """Whether the message is to be linked now."""


@dataclass(frozen=True, slots=True)
class _ToFile:
    """A message on its way into mailboxes."""

    content: StoredContent
    """Without its bytes."""
    indexed: IndexedMessage
    """Without the fields that it is to be shown with."""
    showing: Showing
    decided: str | None = None
    """Its fields; None for a message that no mailbox has."""

    def place_in(self, rows: UnitOfWork, mailboxes: list[int], *, at: datetime, standing: Standing) -> Filing:
        """An entry in each mailbox that has not got the content, as the message is shown."""
        message_id = self.content.message_id
        fields = self.showing.fields(rows, message_id, standing, self.decided)
        indexed = self.showing.with_fields(self.indexed, fields)
        filing = _place_in(rows, mailboxes, self.content, indexed, at=at, standing=standing)
        if filing.uids and self.decided is None:
            keep_fields(rows, message_id, at, fields, indexed)
        return filing


class FileMessage:
    """Runs ``file`` jobs, whose subject is the message id."""

    def __init__(
        self,
        store: Store,
        indexer: MessageIndexer,
        clock: Clock,
        feed: ChangeFeed,
        gate: ByteGate | None = None,
        *,
        verdict_headers: bool = False,
    ) -> None:
        """``gate`` bounds the memory of all steps that share it; ``verdict_headers`` is the setting of that name."""
        self._store = store
        self._showing = Showing(indexer, verdict_headers=verdict_headers)
        self._clock = clock
        self._feed = feed
        self._gate = gate or ByteGate()

    async def __call__(self, job: Job) -> bool:
        """Run one job; returns whether another one may follow.

        Raises:
            NotFoundError: a recipient has no mailbox (the others are served), or the message was not accepted.
            StoreError: the lease was lost, or the commit failed, or the stored bytes are damaged.
        """
        facts = await self._store.read(lambda rows: rows.messages.facts(job.subject))
        async with self._gate.hold(facts.size_bytes):
            filing = await self._file(job)
        for mailbox_id in filing.uids:
            self._feed.changed(mailbox_id)
        if filing.homeless:
            raise NotFoundError("a recipient of an accepted message has no mailbox")
        return filing.links

    async def _file(self, job: Job) -> Filing:
        content, decided = await self._store.read(
            lambda rows: (rows.messages.content(job.subject), rows.shown.of(job.subject))
        )
        indexed = await asyncio.to_thread(self._showing.index, content.content, decided)
        at = self._clock.now()
        # Only the index is written: the bytes are let go before the wait for the disk.
        filed = _ToFile(replace(content, content=b""), indexed, self._showing, decided)
        del content
        return await self._store.write(lambda rows: _file(rows, job, filed, at))


async def refile(store: Store, clock: Clock, message_id: str, actor: str) -> None:
    """File an accepted message again, after the mailbox that was missing has been made.

    Raises:
        NotFoundError: there is no accepted message with that id. StoreError: the commit failed.
    """
    at = clock.now()

    def again(rows: UnitOfWork) -> None:
        rows.messages.content(message_id, with_bytes=False)
        rows.jobs.enqueue(JobKind.FILE, message_id)
        rows.audit.add(at, actor, "message.refile", message_id)

    await store.write(again)


def _file(rows: UnitOfWork, job: Job, filed: _ToFile, at: datetime) -> Filing:
    if rows.shown.of(job.subject) != filed.decided:
        raise StoreError("another attempt has filed the message meanwhile")
    content = filed.content
    state = rows.messages.state(job.subject)
    copies = _copies(rows, content)
    # The link step comes for what was never filed; everything else stands as its copies do, or as it did before.
    known = copies or state is not State.UNWRAPPED
    standing = rows.standings.of(job.subject) if known else FILED
    mailboxes, homeless = _mailboxes(rows, content)
    filing = filed.place_in(rows, mailboxes, at=at, standing=standing)
    filing.homeless = homeless
    if homeless:
        # The job stays, so the lease is not checked by finishing it; what was filed holds whoever filed it.
        if job.attempt == 1:
            rows.audit.add(at, ACTOR, "message.no_mailbox", job.subject, {"recipients": homeless})
    elif not rows.jobs.finish(job):
        raise StoreError("the lease of the file job was lost")
    if filing.uids or filing.present:
        filing.links = _advance(rows, content, filing, state, at, duplicate=bool(copies))
    if filing.links:
        rows.jobs.enqueue(JobKind.LINK, job.subject)
    return filing


def file_at_once(
    rows: UnitOfWork,
    content: StoredContent,
    indexed: IndexedMessage,
    at: datetime,
    decide: Callable[[], Standing],
    *,
    showing: Showing,
) -> Filing | None:
    """File a message within the transaction that has just kept its content; None, and nothing done, when it cannot be.

    It cannot when a recipient has no mailbox: that fault is the ``file`` job's to audit, and to come back to.
    ``decide`` says how a message stands that was never filed: it is asked before anything is written, so that each
    mailbox takes the message as it stands, once. ``indexed`` is what ``showing`` made of it.
    """
    mailboxes, homeless = _mailboxes(rows, content)
    if homeless or not mailboxes:
        return None
    copies = _copies(rows, content)
    standing = rows.standings.of(content.message_id) if copies else decide()
    filing = _ToFile(content, indexed, showing).place_in(rows, mailboxes, at=at, standing=standing)
    filing.links = _advance(rows, content, filing, State.UNWRAPPED, at, duplicate=bool(copies))
    return filing


def _copies(rows: UnitOfWork, content: StoredContent) -> list[str]:
    """Messages with this content that were filed before.

    The first of them is the one to be linked, not this one, or the chart would get it twice: also when this one is new
    to somebody, because the sender's HISP delivers to each recipient by itself.
    """
    return rows.messages.filed_copies(content.message_id, content.content_sha256)


def _mailboxes(rows: UnitOfWork, content: StoredContent) -> tuple[list[int], int]:
    """The mailboxes of the recipients, and how many recipients have none."""
    homeless = 0
    mailboxes: dict[int, None] = {}
    for recipient in content.delivered_to:
        served = rows.mailboxes.for_recipient(recipient)
        homeless += not served
        mailboxes |= dict.fromkeys(served)
    return list(mailboxes), homeless


def _place_in(
    rows: UnitOfWork,
    mailboxes: list[int],
    content: StoredContent,
    indexed: IndexedMessage,
    *,
    at: datetime,
    standing: Standing,
) -> Filing:
    filing = Filing()
    for mailbox_id in mailboxes:
        uid = rows.mailboxes.add(mailbox_id, content.message_id, content.content_sha256, indexed, at, standing=standing)
        if uid is None:
            filing.present += 1
        else:
            filing.uids[mailbox_id] = uid
    return filing


def _advance(
    rows: UnitOfWork, content: StoredContent, filing: Filing, state: State, at: datetime, *, duplicate: bool
) -> bool:
    """Move the message on from ``state``; returns whether it is to be linked.

    One that was filed by an earlier attempt, and gained a mailbox now, stays where it is.
    """
    message_id = content.message_id
    duplicate = duplicate or not filing.uids
    if state is State.UNWRAPPED:
        rows.messages.set_state(message_id, State.FILED, at, DUPLICATE if duplicate else "")
    detail = {"uids": [[mailbox, uid] for mailbox, uid in filing.uids.items()], "present": filing.present}
    if state is State.UNWRAPPED or filing.uids:
        rows.audit.add(at, ACTOR, "message.duplicate_content" if duplicate else "message.filed", message_id, detail)
    return state is State.UNWRAPPED and not duplicate
