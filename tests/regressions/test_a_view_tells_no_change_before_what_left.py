"""A client that was told of a MODSEQ asks for what came after it (RFC 7162 3.2.5): it must have been told all before.

The mailbox below a view is refreshed by whoever has it open. A change of flags that it knew already was told with its
MODSEQ in the view as well, before the view had looked for what had left it with an earlier one: a client that went away
then was never told that the message had left.
"""

from __future__ import annotations

from pathlib import Path

from gateway.core.standing import Standing
from gateway.inbox.service import Inbox
from gateway.inbox.viewed_mailbox import ViewedMailbox
from gateway.inbox.views_inbox import ViewsInbox
from gateway.ports import Link, Patient, UnitOfWork
from gateway.settings import IMAPSettings
from tests.unit.imap.imap_harness import Practice, plain_message


async def test_what_is_told_is_not_beyond_what_the_view_has_looked_at(tmp_path: Path) -> None:
    practice = await Practice.create(tmp_path)
    try:
        inbox: Inbox = ViewsInbox(practice.store, practice.clock, practice.hub, IMAPSettings())
        for number in (1, 2):
            await practice.file(plain_message(number), standing=Standing(decided=True))
        view = (await inbox.open(practice.account, "Unlinked")).mailbox
        assert isinstance(view, ViewedMailbox)
        known = view.highest_modseq

        def link(tx: UnitOfWork) -> None:
            at = practice.clock.now()
            tx.patients.upsert([Patient("P1")], "test", at)
            tx.links.add(Link("L1", "m00001", "P1", "manual", "jane", "manual", at))
            tx.standings.settle(["m00001"])
            tx.mailboxes.set_flags(practice.inbox_id, {2: frozenset({"\\Flagged", *view.base.flags[1]})})

        await practice.store.write(link)
        await view.base.refresh()
        assert list(view.modseqs) == [view[slot].modseq for slot in (0, 1)] == [known, known]
        await view.refresh()
        assert (view.gone_since(known, 2), view.changed_since(known, 2)) == ([0], [1])
        assert view.modseqs[1] == view[1].modseq == view.base.modseqs[1] > known
        assert view.unseen == 1
    finally:
        practice.store.close()
