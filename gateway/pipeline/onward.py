"""What follows the judgement of a message at once: filing it and linking it, in the transaction that keeps it.

Most messages go from the wire to the inbox without a fault. For them three steps, each with a job, a claim and a
commit of its own, cost more than what they do. So where the next step is certain, it is taken in the same
transaction: verdict, content, the states ``unwrapped`` and ``filed``, the mailbox rows, the link or the decision
against it, and every audit event are on the disk together, just as the separate steps would have written them. Whether
the message is linked is decided before it is placed, so that each mailbox takes it as it stands: one that is linked by
the rule enters the view of the linked ones only.

The separate steps are there for everything else. The transaction asks for the ``file`` job in place of filing when a
recipient has no mailbox. And this is done at the first attempt only: should anything in here fail, the whole
transaction is undone, and the next attempt keeps the content by itself and leaves the filing to its own job. So a
filing that fails neither undoes nor blocks the keeping of the content, and a message whose indexing kills the process
is not met here again.

Crash story: before the commit there is nothing but the raw message and its job, and judging is pure; after it nothing
is left to be done but the import, whose job is on the disk with the link.

Guarantees: whatever the separate steps guarantee, by the same code (:mod:`gateway.pipeline.file`,
:mod:`gateway.pipeline.link`). Watchers of the mailboxes are told after the commit.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from gateway.core.claims import Evidence
from gateway.core.lifecycle import JobKind
from gateway.core.standing import Standing
from gateway.core.verdict import Judgement
from gateway.pipeline.file import file_at_once
from gateway.pipeline.link import LinkMessage, Ruling
from gateway.pipeline.showing import Showing
from gateway.ports import ChangeFeed, IndexedMessage, MessageIndexer, StoredContent, UnitOfWork

AT_ONCE_BYTES = 1024 * 1024
"""Of a larger raw message the steps are taken one by one, so that its content and the text that is searched are not in
memory at the same time."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was worked out of an accepted message before the transaction."""

    indexed: IndexedMessage
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the transaction did."""

    mailboxes: tuple[int, ...] = ()
    """Which have something new."""
    follows: bool = True
    """Whether a job was asked for."""


class Onward:
    """Files and links what was just accepted."""

    def __init__(
        self, indexer: MessageIndexer, link: LinkMessage, feed: ChangeFeed, *, verdict_headers: bool = False
    ) -> None:
        """``verdict_headers`` is the setting of that name."""
        self._showing = Showing(indexer, verdict_headers=verdict_headers)
        self._link = link
        self._feed = feed

    def takes(self, size_bytes: int) -> bool:
        """Whether a message of that size goes on at once."""
        return size_bytes <= AT_ONCE_BYTES

    def prepare(self, content: bytes, sender: str) -> Prepared:
        """What filing and linking need. It takes CPU: to be called in a thread, before the transaction."""
        return Prepared(self._showing.index(content), self._link.read(content, sender))

    def link_id(self) -> str:
        """The id that a link would have. To be called on the event loop."""
        return self._link.new_id()

    def write(
        self,
        rows: UnitOfWork,
        message_id: str,
        judgement: Judgement,
        prepared: Prepared,
        *,
        link_id: str,
        at: datetime,
    ) -> Outcome:
        """Go on within the transaction that has kept the content and set the state ``unwrapped``."""
        content = StoredContent(
            message_id=message_id,
            content=b"",
            content_sha256=judgement.content_sha256,
            sender=judgement.sender,
            subject=judgement.subject,
            rfc822_message_id=judgement.message_id,
            delivered_to=judgement.delivered_to,
        )
        ruling: Ruling | None = None

        def decide() -> Standing:
            nonlocal ruling
            ruling = self._link.rule(rows, judgement.sender, prepared.evidence, judgement.delivered_to)
            return ruling.standing

        filing = file_at_once(rows, content, prepared.indexed, at, decide, showing=self._showing)
        if filing is None:
            rows.jobs.enqueue(JobKind.FILE, message_id)
            return Outcome()
        linked = False
        if filing.links and ruling is not None:
            linked = self._link.carry_out(rows, message_id, ruling, link_id, at)
        return Outcome(tuple(filing.uids), linked)

    def tell(self, outcome: Outcome) -> None:
        """Tell whoever watches the mailboxes. To be called after the commit, on the event loop."""
        for mailbox_id in outcome.mailboxes:
            self._feed.changed(mailbox_id)
