"""What POP3 clients have deleted from the listing of their account (EP-29, EP-30).

Nothing is removed: a row says that the messages of a run of UIDs are not listed over POP3 to one account any more.
Rows are only added. To show everything again begins a new round, in which nothing is hidden; the rows of the rounds
before stay, and say for ever what was hidden when.

Guarantees: within a round no message is hidden twice, whoever asks again; both ends of a run are messages of the
mailbox, which the database itself sees to. A unit of work is alone while it writes, so two sessions of one account
that delete the same messages at the same moment hide them once.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Connection, bindparam, func, insert, select

from gateway.store.prepared import Prepared
from gateway.store.tables import pop3_hidden, pop3_restored

_ROUND = Prepared(select(func.max(pop3_restored.c.round)).where(pop3_restored.c.account_id == bindparam("account")))
_RUNS = Prepared(
    select(pop3_hidden.c.uid, pop3_hidden.c.last_uid)
    .where(
        pop3_hidden.c.account_id == bindparam("account"),
        pop3_hidden.c.mailbox_id == bindparam("mailbox"),
        pop3_hidden.c.round == bindparam("round"),
    )
    .order_by(pop3_hidden.c.uid)
)
_COUNT = Prepared(
    select(func.sum(pop3_hidden.c.last_uid - pop3_hidden.c.uid + 1)).where(
        pop3_hidden.c.account_id == bindparam("account"), pop3_hidden.c.round == bindparam("round")
    )
)


class POP3Hidden:
    """See :class:`gateway.ports.POP3Rows`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def hidden(self, account_id: int, mailbox_id: int) -> list[tuple[int, int]]:
        """The first and the last UID of every run that is hidden now, ascending."""
        rows = _RUNS.rows(self._connection, account=account_id, mailbox=mailbox_id, round=self._round(account_id))
        return [(row.uid, row.last_uid) for row in rows]

    def hide(self, account_id: int, mailbox_id: int, uids: Iterable[int], at: datetime) -> int:
        """Hide messages of the mailbox; returns how many were not hidden before."""
        known = self.hidden(account_id, mailbox_id)
        runs = _runs(_not_in(known, uids))
        if runs:
            about = {"account_id": account_id, "mailbox_id": mailbox_id, "round": self._round(account_id), "at": at}
            rows = [{**about, "uid": first, "last_uid": last} for first, last in runs]
            self._connection.execute(insert(pop3_hidden), rows)
        return sum(last - first + 1 for first, last in runs)

    def restore(self, account_id: int, at: datetime, actor: str) -> int:
        """Show everything again; returns how many messages were hidden. A no-op when none was."""
        number = self._round(account_id)
        found = _COUNT.first(self._connection, account=account_id, round=number)
        count = int(found[0] or 0) if found is not None else 0
        if count:
            self._connection.execute(
                insert(pop3_restored).values(account_id=account_id, round=number + 1, at=at, actor=actor)
            )
        return count

    def _round(self, account_id: int) -> int:
        found = _ROUND.first(self._connection, account=account_id)
        return int(found[0] or 0) if found is not None else 0


def _not_in(runs: list[tuple[int, int]], uids: Iterable[int]) -> list[int]:
    """The UIDs that are in none of the runs, ascending and once each. Both are walked side by side."""
    left: list[int] = []
    ahead = iter([*runs, (0, 0)])
    first, last = next(ahead)
    for uid in sorted(set(uids)):
        while last and last < uid:
            first, last = next(ahead)
        if not last or uid < first:
            left.append(uid)
    return left


def _runs(uids: list[int]) -> list[tuple[int, int]]:
    """Ascending UIDs as the ends of runs without a gap."""
    runs: list[tuple[int, int]] = []
    for uid in uids:
        if runs and uid == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], uid)
        else:
            runs.append((uid, uid))
    return runs
