"""Views of a mailbox: which of its messages wait for a patient, and which are on a chart.

A message enters a view under a UID of that view, which is above all earlier ones (RFC 3501 2.3.1.1), and leaves it by a
row of its own. Both rows are written in the transaction that files or links the message, with the MODSEQ that this
transaction gives to the message in the mailbox itself. So a reader who knows the mailbox up to a MODSEQ, and looks at
the rows of the view up to the same, sees both as they were at one moment, whenever he looks.

Crash story: the rows are part of somebody else's transaction, and are there with the filing or the link or not at all.
Failure modes: those of the statements.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    Select,
    String,
    Text,
    bindparam,
    cast,
    exists,
    func,
    insert,
    literal,
    select,
)

from gateway.core.errors import StoreError
from gateway.core.standing import View
from gateway.ports import ViewColumns
from gateway.store.prepared import Prepared
from gateway.store.tables import view_entry, view_exit

PAGE_ROWS = 5_000
"""Messages whose numbers are in memory as texts at a time."""
_BETWEEN = ","

_IN_VIEW = (view_entry.c.mailbox_id == bindparam("mailbox"), view_entry.c.view == bindparam("of_view"))
_HAS_LEFT = exists().where(
    view_exit.c.mailbox_id == view_entry.c.mailbox_id,
    view_exit.c.view == view_entry.c.view,
    view_exit.c.uid == view_entry.c.uid,
)
_NEWEST = select(view_entry.c.uid).where(*_IN_VIEW).order_by(view_entry.c.uid.desc()).limit(1).scalar_subquery()
_ENTER = Prepared(
    # One statement finds the next UID and takes it: the store has one writer.
    insert(view_entry).from_select(
        ["mailbox_id", "view", "uid", "of_uid", "modseq"],
        select(
            cast(bindparam("mailbox"), BigInteger),
            cast(bindparam("of_view"), String),
            func.coalesce(_NEWEST, literal(0)) + 1,
            cast(bindparam("of_message"), BigInteger),
            cast(bindparam("at_modseq"), BigInteger),
        ),
    )
)
_LEAVE = Prepared.into(view_exit)
_STANDS_IN = Prepared(
    select(view_entry.c.view, view_entry.c.uid).where(
        view_entry.c.mailbox_id == bindparam("mailbox"), view_entry.c.of_uid == bindparam("of_message"), ~_HAS_LEFT
    )
)
_LAST = Prepared(
    select(view_entry.c.uid)
    .where(*_IN_VIEW, view_entry.c.modseq <= bindparam("until"))
    .order_by(view_entry.c.uid.desc())
    .limit(1)
)
_LEFT = Prepared(
    select(view_exit.c.uid)
    .where(
        view_exit.c.mailbox_id == bindparam("mailbox"),
        view_exit.c.view == bindparam("of_view"),
        view_exit.c.modseq > bindparam("since"),
        view_exit.c.modseq <= bindparam("until"),
    )
    .order_by(view_exit.c.uid)
)
_LEFT_WITH_MODSEQ = Prepared(
    select(view_exit.c.modseq, view_exit.c.uid)
    .where(
        view_exit.c.mailbox_id == bindparam("mailbox"),
        view_exit.c.view == bindparam("of_view"),
        view_exit.c.modseq > bindparam("since"),
        view_exit.c.modseq <= bindparam("until"),
    )
    .order_by(view_exit.c.modseq, view_exit.c.uid)
)


def _joined(rows: Select[*tuple[Any, ...]]) -> Select[*tuple[Any, ...]]:
    """One row with the values of each column in one text, in the same order in both; NULL for no rows.

    As :mod:`gateway.store.mailbox_columns`: no object is made for a row, and the interpreter's lock is free meanwhile.
    """
    each = rows.subquery()
    columns = (cast(each.c.uid, Text), cast(each.c.of_uid, Text))
    return select(*(func.aggregate_strings(column, _BETWEEN) for column in columns))


_ENTRIES = (
    select(view_entry.c.uid, view_entry.c.of_uid)
    .where(*_IN_VIEW, view_entry.c.uid > bindparam("after"), view_entry.c.modseq <= bindparam("until"))
    .order_by(view_entry.c.uid)
    .limit(bindparam("rows"))
)
_NEWS = _joined(_ENTRIES)
_STANDING = _joined(_ENTRIES.where(~_HAS_LEFT.where(view_exit.c.modseq <= bindparam("until"))))


class Views:
    """See :class:`gateway.ports.ViewRows`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    # --- writing; for the store itself ---

    def enter(self, mailbox_id: int, view: View, uid: int, modseq: int) -> None:
        """Let the message with that UID of the mailbox into the view, under a new UID there."""
        _ENTER.later(self._connection, mailbox=mailbox_id, of_view=view.value, of_message=uid, at_modseq=modseq)

    def leave(self, mailbox_id: int, view: View, view_uid: int, modseq: int) -> None:
        """Take the message with that UID of the view out of it."""
        _LEAVE.later(self._connection, mailbox_id=mailbox_id, view=view.value, uid=view_uid, modseq=modseq)

    def stands_in(self, mailbox_id: int, uid: int) -> tuple[View, int] | None:
        """The view in which a message of the mailbox is, and its UID there; None for one that is in none."""
        row = _STANDS_IN.first(self._connection, mailbox=mailbox_id, of_message=uid)
        return None if row is None else (View(row.view), row.uid)

    # --- reading ---

    def standing(self, mailbox_id: int, view: View, *, until: int) -> ViewColumns:
        """What is in the view at the MODSEQ ``until`` of the mailbox."""
        return self._columns(_STANDING, mailbox_id, view, after=0, until=until)

    def entered(self, mailbox_id: int, view: View, *, after_uid: int, until: int) -> ViewColumns:
        """What came into the view above a UID of it, also what has left it again."""
        return self._columns(_NEWS, mailbox_id, view, after=after_uid, until=until)

    def left(self, mailbox_id: int, view: View, *, since: int, until: int) -> list[tuple[int, int]]:
        """MODSEQ and UID of what left the view after the MODSEQ ``since``, in this order."""
        where = {"mailbox": mailbox_id, "of_view": view.value, "since": since, "until": until}
        return [(row.modseq, row.uid) for row in _LEFT_WITH_MODSEQ.rows(self._connection, **where)]

    def vanished(self, mailbox_id: int, view: View, *, since: int, until: int) -> list[int]:
        """UIDs that left the view after the MODSEQ ``since``, ascending."""
        where = {"mailbox": mailbox_id, "of_view": view.value, "since": since, "until": until}
        return _LEFT.scalars(self._connection, **where)

    def last_uid(self, mailbox_id: int, view: View, *, until: int) -> int:
        """The UID that was given out last in the view; 0 when none was."""
        return int(_LAST.scalar(self._connection, mailbox=mailbox_id, of_view=view.value, until=until) or 0)

    def _columns(
        self, page: Select[*tuple[Any, ...]], mailbox_id: int, view: View, *, after: int, until: int
    ) -> ViewColumns:
        found = ViewColumns(array("I"), array("I"))
        added = PAGE_ROWS
        while added == PAGE_ROWS:
            where = {"mailbox": mailbox_id, "of_view": view.value, "after": after, "until": until, "rows": PAGE_ROWS}
            added = _take(found, self._connection.execute(page, where).one())
            after = found.uids[-1] if found.uids else 0
        return found


def _take(found: ViewColumns, texts: Sequence[str | None]) -> int:
    """Add what stands in the two texts, by ascending UID; return the number of messages. Raises StoreError."""
    uids, of_uids = texts
    if uids is None or of_uids is None:
        return 0
    pairs = sorted(zip(map(int, uids.split(_BETWEEN)), map(int, of_uids.split(_BETWEEN)), strict=True))
    if uids.count(_BETWEEN) != of_uids.count(_BETWEEN):
        raise StoreError("the rows of a view do not belong together")
    found.uids.extend(uid for uid, _ in pairs)
    found.of_uids.extend(of_uid for _, of_uid in pairs)
    return len(pairs)
