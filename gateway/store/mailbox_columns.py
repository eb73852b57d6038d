"""The flags of a mailbox, read as columns: what a mail client waits for when it selects a mailbox of any size.

Only the narrow rows of ``mailbox_flag`` are read, and the database joins thousands of them into one row of three texts.
So no object is made for a message, neither here nor in the driver; and the interpreter's lock is free while the
database works. Row by row the driver of SQLite frees and takes it so often that the event loop comes to nothing.

Failure modes: StoreError when the texts do not belong together; those of the statements. Nothing is written.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import islice
from operator import lt
from typing import Any

from sqlalchemy import Connection, Select, Text, bindparam, cast, func, select

from gateway.core.errors import StoreError
from gateway.ports import FlagColumns
from gateway.store.tables import mailbox_flag

PAGE_ROWS = 5_000
"""Messages whose texts are in memory at a time, about a quarter of a megabyte."""
_BETWEEN = "\n"
"""Between the values in a text. A flag is one word, so neither it nor a space is a line feed."""

_ROWS = select(mailbox_flag.c.uid, mailbox_flag.c.flags, mailbox_flag.c.modseq).where(
    mailbox_flag.c.mailbox_id == bindparam("mailbox")
)


def _joined(rows: Select[*tuple[Any, ...]]) -> Select[*tuple[Any, ...]]:
    """One row with the values of each column in one text, in the same order in all three; NULL for no rows."""
    each = rows.subquery()
    columns = (cast(each.c.uid, Text), each.c.flags, cast(each.c.modseq, Text))
    return select(*(func.aggregate_strings(column, _BETWEEN) for column in columns))


_PAGE = _joined(
    _ROWS.where(mailbox_flag.c.uid > bindparam("after")).order_by(mailbox_flag.c.uid).limit(bindparam("rows"))
)
_SINCE = _joined(_ROWS.where(mailbox_flag.c.modseq > bindparam("since")))


class Sets(dict[str, frozenset[str]]):
    """The one set for each text, made when it is first asked for."""

    def __missing__(self, text: str) -> frozenset[str]:
        made = self[text] = frozenset(text.split())
        return made


def flag_columns(connection: Connection, mailbox_id: int, since: int) -> FlagColumns:
    """See :meth:`gateway.ports.MailboxRows.flags`.

    What is asked for with a MODSEQ is what is new, which the index of MODSEQ finds: the cost is that of the news, not
    of the mailbox. It is read at once.
    """
    found = FlagColumns(array("I"), [], array("Q"))
    sets = Sets()
    if since:
        take(found, connection.execute(_SINCE, {"mailbox": mailbox_id, "since": since}).one(), sets)
        return found
    after, added = 0, PAGE_ROWS
    while added == PAGE_ROWS:
        where = {"mailbox": mailbox_id, "after": after, "rows": PAGE_ROWS}
        added = take(found, connection.execute(_PAGE, where).one(), sets)
        after = found.uids[-1] if found.uids else 0
    return found


def take(found: FlagColumns, texts: Sequence[str | None], sets: Sets) -> int:
    """Add what stands in the three texts, by ascending UID; return the number of messages. Raises StoreError."""
    if None in texts:
        return 0
    uids, flags, modseqs = (text.split(_BETWEEN) for text in texts if text is not None)
    if not len(uids) == len(flags) == len(modseqs):
        raise StoreError("the flags of a mailbox do not belong to its messages")
    numbers = array("I", map(int, uids))
    if not all(map(lt, numbers, islice(numbers, 1, None))):
        # No database promises an order to what it joins, only that it is the same in the three texts.
        order = sorted(range(len(numbers)), key=numbers.__getitem__)
        numbers = array("I", map(numbers.__getitem__, order))
        flags, modseqs = [flags[place] for place in order], [modseqs[place] for place in order]
    found.uids.extend(numbers)
    found.flags.extend(map(sets.__getitem__, flags))
    found.modseqs.extend(map(int, modseqs))
    return len(numbers)
