r"""``\Seen`` of one account: what lies over the flags of a mailbox when each person has a ``\Seen`` of his own.

A row says what the account made of one message; where it has none, the ``\Seen`` that all share counts, as it stood
when the setting changed. So nothing is lost by a change of ``imap.seen``, in either direction: the shared marks and
those of each account stand side by side, and the setting says which are shown.

* MODSEQ comes from the one counter of the mailbox, so it orders changes of the shared flags and of anybody's ``\Seen``.
  A message has for an account the higher MODSEQ of the two rows. What another account marks moves the counter, and
  nothing that this one is shown.
* A change of the setting changes what clients see of the messages that somebody has a row for. They get a new MODSEQ,
  in the transaction that writes the change down, so that a client that asks for changes since a MODSEQ (RFC 7162) is
  told.

Reading is as in :mod:`gateway.store.mailbox_columns`: the database joins the rows into texts, and the mark stands
before the flags, where no flag can: they never begin with a space.

Failure modes: those of the statements; whatever is written is undone with the unit.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

from sqlalchemy import (
    Connection,
    Select,
    Text,
    and_,
    bindparam,
    case,
    cast,
    func,
    insert,
    literal,
    select,
    union,
    update,
)

from gateway.ports import FlagColumns
from gateway.store.mailbox_columns import PAGE_ROWS, Sets, take
from gateway.store.prepared import Prepared
from gateway.store.tables import mailbox_counter, mailbox_flag, mailbox_seen, seen_setting

SEEN = "\\Seen"
SHARED = "shared"
"""What counted before anything was written down."""
_CHUNK = 500
_YES, _NO = " +", " -"

_OWN = and_(
    mailbox_seen.c.account_id == bindparam("account"),
    mailbox_seen.c.mailbox_id == mailbox_flag.c.mailbox_id,
    mailbox_seen.c.uid == mailbox_flag.c.uid,
)
_MARKED = case(
    (mailbox_seen.c.seen.is_(None), mailbox_flag.c.flags),
    (mailbox_seen.c.seen, literal(_YES, Text) + mailbox_flag.c.flags),
    else_=literal(_NO, Text) + mailbox_flag.c.flags,
)
_NEWER = case((mailbox_seen.c.modseq > mailbox_flag.c.modseq, mailbox_seen.c.modseq), else_=mailbox_flag.c.modseq)
_ROWS = (
    select(mailbox_flag.c.uid, _MARKED.label("flags"), _NEWER.label("modseq"))
    .select_from(mailbox_flag.outerjoin(mailbox_seen, _OWN))
    .where(mailbox_flag.c.mailbox_id == bindparam("mailbox"))
)
_NEWS = union(
    select(mailbox_flag.c.uid).where(
        mailbox_flag.c.mailbox_id == bindparam("mailbox"), mailbox_flag.c.modseq > bindparam("since")
    ),
    select(mailbox_seen.c.uid).where(
        mailbox_seen.c.account_id == bindparam("account"),
        mailbox_seen.c.mailbox_id == bindparam("mailbox"),
        mailbox_seen.c.modseq > bindparam("since"),
    ),
)


def _joined(rows: Select[*tuple[Any, ...]]) -> Select[*tuple[Any, ...]]:
    each = rows.subquery()
    columns = (cast(each.c.uid, Text), each.c.flags, cast(each.c.modseq, Text))
    return select(*(func.aggregate_strings(column, "\n") for column in columns))


_PAGE = _joined(
    _ROWS.where(mailbox_flag.c.uid > bindparam("after")).order_by(mailbox_flag.c.uid).limit(bindparam("rows"))
)
_SINCE = _joined(_ROWS.where(mailbox_flag.c.uid.in_(_NEWS)))
_BASES = (
    select(mailbox_flag.c.uid, mailbox_flag.c.flags, mailbox_seen.c.seen)
    .select_from(mailbox_flag.outerjoin(mailbox_seen, _OWN))
    .where(mailbox_flag.c.mailbox_id == bindparam("mailbox"), mailbox_flag.c.uid.in_(bindparam("uids", expanding=True)))
)
_MARK = Prepared.into(mailbox_seen)
_CHANGE = Prepared(
    update(mailbox_seen)
    .where(
        mailbox_seen.c.account_id == bindparam("account"),
        mailbox_seen.c.mailbox_id == bindparam("mailbox"),
        mailbox_seen.c.uid == bindparam("of_uid"),
    )
    .values(seen=bindparam("to_seen"), modseq=bindparam("to_modseq"))
)


class _Marked(Sets):
    r"""The one set for each text, with the ``\Seen`` that the mark before it says."""

    def __missing__(self, text: str) -> frozenset[str]:
        mark, flags = text[: len(_YES)], frozenset(text.split())
        if mark == _YES:
            flags = frozenset(text[len(_YES) :].split()) | {SEEN}
        elif mark == _NO:
            flags = frozenset(text[len(_NO) :].split()) - {SEEN}
        self[text] = flags
        return flags


def own_flag_columns(connection: Connection, mailbox_id: int, since: int, account_id: int) -> FlagColumns:
    r"""The flags as the account sees them; see :meth:`gateway.ports.MailboxRows.flags`."""
    found = FlagColumns(array("I"), [], array("Q"))
    sets = _Marked()
    where = {"mailbox": mailbox_id, "account": account_id}
    if since:
        take(found, connection.execute(_SINCE, where | {"since": since}).one(), sets)
        return found
    after, added = 0, PAGE_ROWS
    while added == PAGE_ROWS:
        added = take(found, connection.execute(_PAGE, where | {"after": after, "rows": PAGE_ROWS}).one(), sets)
        after = found.uids[-1] if found.uids else 0
    return found


def keep_own_seen(
    connection: Connection, mailbox_id: int, account_id: int, flags: Mapping[int, frozenset[str]], modseq: int
) -> tuple[dict[int, frozenset[str]], int]:
    r"""Write the ``\Seen`` of those flags for the account alone.

    Args:
        connection: of the unit that writes.
        mailbox_id: where.
        account_id: whose mark it is.
        flags: what the account is to see, by UID. UIDs that are not there are passed over.
        modseq: what the changed ones get.

    Returns:
        What the flags that all share are to be, by UID: those given, with the shared ``\Seen`` as it is; and how many
        marks changed.
    """
    shared: dict[int, frozenset[str]] = {}
    changed = 0
    for uid, text, own in _bases(connection, mailbox_id, account_id, list(flags)):
        base = frozenset({SEEN}).intersection(text.split())
        shared[uid] = (flags[uid] - {SEEN}) | base
        wanted = SEEN in flags[uid]
        if wanted == (bool(base) if own is None else own):
            continue
        changed += 1
        if own is None:
            _MARK.run(connection, account_id=account_id, mailbox_id=mailbox_id, uid=uid, seen=wanted, modseq=modseq)
        else:
            _CHANGE.run(
                connection, account=account_id, mailbox=mailbox_id, of_uid=uid, to_seen=wanted, to_modseq=modseq
            )
    return shared, changed


def _bases(
    connection: Connection, mailbox_id: int, account_id: int, uids: Sequence[int]
) -> list[tuple[int, str, bool | None]]:
    rest, found = iter(uids), list[tuple[int, str, bool | None]]()
    while chunk := list(islice(rest, _CHUNK)):
        rows = connection.execute(_BASES, {"mailbox": mailbox_id, "account": account_id, "uids": chunk})
        found += [(row.uid, row.flags, row.seen) for row in rows]
    return found


def use_seen(connection: Connection, mode: str, at: datetime) -> list[int] | None:
    r"""Write down whose ``\Seen`` is shown from now on; returns the mailboxes that look otherwise than before.

    None, and nothing done, when it was so before.
    """
    newest = connection.execute(
        select(seen_setting.c.seq, seen_setting.c.mode).order_by(seen_setting.c.seq.desc()).limit(1)
    ).first()
    if mode == (SHARED if newest is None else newest.mode):
        return None
    seq = 1 if newest is None else newest.seq + 1
    connection.execute(insert(seen_setting).values(seq=seq, mode=mode, at=at))
    mailboxes = list(connection.execute(select(mailbox_seen.c.mailbox_id).distinct()).scalars())
    for mailbox_id in mailboxes:
        _touch(connection, mailbox_id)
    return mailboxes


def _touch(connection: Connection, mailbox_id: int) -> None:
    """Give a new MODSEQ to every message of the mailbox that somebody has a mark of his own on."""
    counter = mailbox_counter.c.mailbox_id == mailbox_id
    modseq = (connection.scalar(select(mailbox_counter.c.highest_modseq).where(counter)) or 1) + 1
    marked = select(mailbox_seen.c.uid).where(mailbox_seen.c.mailbox_id == mailbox_id)
    connection.execute(
        update(mailbox_flag)
        .where(mailbox_flag.c.mailbox_id == mailbox_id, mailbox_flag.c.uid.in_(marked))
        .values(modseq=modseq)
    )
    connection.execute(update(mailbox_counter).where(counter).values(highest_modseq=modseq))
