"""The ``file`` step: puts an accepted message into the inbox of every recipient who trusts its signer.

What IMAP answers from is computed first, outside any transaction. Then one transaction: an entry with its UID in
every mailbox of the recipients, the state ``filed``, the ``link`` job, the audit row, and the end of this job. After
the commit the change feed gets its hint.

Guarantees: a mailbox takes each content once, so running again after a crash files nothing twice, and the same
message under another encryption is shown once (F14). Only the recipients of the judgement are served.

Failure modes: a recipient without a mailbox is a fault in the configuration, not a reason to be silent. Those who
have one are served at once; the fault is audited; and the job fails until somebody mends it, or is set aside where
the operator sees it. StoreError when the lease was lost or the commit failed: nothing is filed, and it runs again.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime

from gateway.core.errors import NotFoundError, StoreError
from gateway.core.lifecycle import JobKind, State
from gateway.ports import ChangeFeed, Clock, IndexedMessage, Job, MessageIndexer, Store, StoredContent, UnitOfWork

ACTOR = "gateway"
DUPLICATE = "duplicate of content that was filed before"
"""Detail of the state of a message that nobody needs to see again. Its first word marks it in lists."""


@dataclass(slots=True)
class _Filing:
    """What the transaction did."""

    uids: dict[int, int] = field(default_factory=dict)
    """New UID by mailbox."""
    present: int = 0
    """Mailboxes that had the content before."""
    homeless: int = 0
    """Recipients without a mailbox."""


class FileMessage:
    """Runs ``file`` jobs, whose subject is the message id."""

    def __init__(self, store: Store, indexer: MessageIndexer, clock: Clock, feed: ChangeFeed) -> None:
        self._store = store
        self._indexer = indexer
        self._clock = clock
        self._feed = feed

    async def __call__(self, job: Job) -> None:
        """Run one job.

        Raises:
            NotFoundError: a recipient has no mailbox (the others are served), or the message was not accepted.
            StoreError: the lease was lost, or the commit failed, or the stored bytes are damaged.
        """
        content = await self._store.read(lambda rows: rows.messages.content(job.subject))
        indexed = await asyncio.to_thread(self._indexer.index, content.content)
        at = self._clock.now()
        filing = await self._store.write(lambda rows: _file(rows, job, content, indexed, at))
        for mailbox_id in filing.uids:
            self._feed.changed(mailbox_id)
        if filing.homeless:
            raise NotFoundError("a recipient of an accepted message has no mailbox")


async def refile(store: Store, clock: Clock, message_id: str, actor: str) -> None:
    """File an accepted message again, after the mailbox that was missing has been made.

    Raises:
        NotFoundError: there is no accepted message with that id. StoreError: the commit failed.
    """
    at = clock.now()

    def again(rows: UnitOfWork) -> None:
        rows.messages.content(message_id)
        rows.jobs.enqueue(JobKind.FILE, message_id, at)
        rows.audit.add(at, actor, "message.refile", message_id)

    await store.write(again)


def _file(rows: UnitOfWork, job: Job, content: StoredContent, indexed: IndexedMessage, at: datetime) -> _Filing:
    filing = _place(rows, content, indexed, at)
    if filing.homeless:
        # The job stays, so the lease is not checked by finishing it; what was filed holds whoever filed it.
        if job.attempt == 1:
            rows.audit.add(at, ACTOR, "message.no_mailbox", job.subject, {"recipients": filing.homeless})
    elif not rows.jobs.finish(job):
        raise StoreError("the lease of the file job was lost")
    if filing.uids or filing.present:
        _advance(rows, content, filing, at)
    return filing


def _place(rows: UnitOfWork, content: StoredContent, indexed: IndexedMessage, at: datetime) -> _Filing:
    filing = _Filing()
    mailboxes: dict[int, None] = {}
    for recipient in content.delivered_to:
        served = rows.mailboxes.for_recipient(recipient)
        filing.homeless += not served
        mailboxes |= dict.fromkeys(served)
    for mailbox_id in mailboxes:
        uid = rows.mailboxes.add(mailbox_id, content.message_id, content.content_sha256, indexed, at)
        if uid is None:
            filing.present += 1
        else:
            filing.uids[mailbox_id] = uid
    return filing


def _advance(rows: UnitOfWork, content: StoredContent, filing: _Filing, at: datetime) -> None:
    """Move the message on. One that was filed by an earlier attempt, and gained a mailbox now, stays where it is."""
    message_id = content.message_id
    state = rows.messages.state(message_id)
    # The message that was filed with this content is the one to be linked, not this one, or the chart would get it
    # twice: also when this one is new to somebody, because the sender's HISP delivers to each recipient by itself.
    duplicate = not filing.uids or bool(rows.messages.filed_copies(message_id, content.content_sha256))
    if state is State.UNWRAPPED:
        rows.messages.set_state(message_id, State.FILED, at, DUPLICATE if duplicate else "")
        if not duplicate:
            rows.jobs.enqueue(JobKind.LINK, message_id, at)
    detail = {"uids": [[mailbox, uid] for mailbox, uid in filing.uids.items()], "present": filing.present}
    if state is State.UNWRAPPED or filing.uids:
        rows.audit.add(at, ACTOR, "message.duplicate_content" if duplicate else "message.filed", message_id, detail)
