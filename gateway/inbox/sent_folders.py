r"""Which folder ``Sent`` a login has: the one that goes with its INBOX.

Who works with one INBOX sees what the others answered from there, and nobody else does: the practice's shared INBOX has
one Sent, the mailbox of an address has its own. Whoever may change something in the INBOX may put his copies into Sent
(right ``i`` of RFC 4314); who may only read it, may only read. A login that had a folder of that name once is left
alone: somebody decided on it.

Failure modes: those of the store; the unit of work is the caller's.
"""

from __future__ import annotations

from datetime import datetime

from gateway.inbox.flags import visible_rights
from gateway.ports import UnitOfWork

SENT_FOLDER = "Sent"
SENT_USE = "\\Sent"
"""Its special use (RFC 6154)."""
INSERT = "i"
ADMINISTER = "a"
GIVEN = "user.sent_given"


def sent_rights(inbox_rights: str) -> str:
    """The rights on Sent that go with those on its INBOX."""
    insert = INSERT if set("sw") & set(inbox_rights) else ""
    return visible_rights(inbox_rights.replace(INSERT, "") + insert)


def give_sent(unit: UnitOfWork, account_id: int, inbox_id: int, rights: str, at: datetime) -> int:
    """Show the Sent of an INBOX to an account that has these rights there; returns the mailbox."""
    mailbox_id = unit.kept.make_sent(inbox_id, at)
    unit.accounts.grant(account_id, SENT_FOLDER, mailbox_id, sent_rights(rights))
    return mailbox_id


def give_lacking(unit: UnitOfWork, actor: str, at: datetime) -> int:
    """Give a Sent to every account with an INBOX that never had one; returns how many that were."""
    lacking = unit.kept.lacking()
    for one in lacking:
        mailbox_id = give_sent(unit, one.account_id, one.inbox_id, one.rights, at)
        unit.audit.add(at, actor, GIVEN, "", {"account": one.account_id, "mailbox": mailbox_id})
    return len(lacking)
