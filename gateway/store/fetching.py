"""Fetching: how each upstream mailbox stands, and what was taken from it. Mutable rows; the messages are elsewhere.

The row that remembers a message is written in the transaction that keeps the message (see
:class:`gateway.pipeline.accept.Accept`), so no crash can leave one without the other.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from gateway.core.fetching import FetchItem, FetchPlace, FetchState, FetchStatus, ItemState, ItemTrouble
from gateway.store.tables import fetch_item, fetch_place, fetch_status
from gateway.store.unit_time import UnitTime

_CHUNK = 500


class Fetching:
    """See :class:`gateway.ports.FetchRows`."""

    def __init__(self, connection: Connection, time: UnitTime) -> None:
        """``time``: of this transaction, from which leases are counted, as those of jobs are."""
        self._connection = connection
        self._time = time

    # --- status ---

    def status(self, account: str) -> FetchStatus:
        """How the account stands; a fresh one when it was never heard of."""
        row = self._connection.execute(select(fetch_status).where(fetch_status.c.account == account)).first()
        if row is None:
            return FetchStatus(account)
        by_state = (
            select(fetch_item.c.state, func.count()).where(fetch_item.c.account == account).group_by(fetch_item.c.state)
        )
        counts = {found[0]: int(found[1]) for found in self._connection.execute(by_state)}
        ever = select(func.count()).where(fetch_item.c.account == account, fetch_item.c.message_id.is_not(None))
        values = {**row._mapping, "state": FetchState(row.state)}  # noqa: SLF001 - SQLAlchemy's public mapping
        owner, until = values.pop("owner"), values.pop("lease_until")
        values["owned"] = bool(owner) and until is not None and until > self._time.now()
        taken = self._connection.scalar(ever) or 0
        return FetchStatus(**values, taken=taken, aside=counts.get(ItemState.ASIDE.value, 0))

    def set_status(self, account: str, **values: Any) -> None:
        """Change columns of the account's row; what is not named stays."""
        plain = {name: value.value if isinstance(value, FetchState) else value for name, value in values.items()}
        # Naming the key as well makes the statement right when nothing else is to be set.
        changed = self._connection.execute(
            update(fetch_status).where(fetch_status.c.account == account).values({"account": account, **plain})
        )
        if not changed.rowcount:
            fresh = {"account": account, "state": FetchState.NEW.value, "error": "", "owner": "", "place": ""}
            zeros = dict.fromkeys(("waiting", "asked", "answered", "new"), 0)
            self._connection.execute(insert(fetch_status).values({**fresh, **zeros, **plain}))

    def ask(self, account: str) -> int:
        """Ask whoever works on the account to fetch at once; returns the number under which that is answered."""
        self.set_status(account)
        asked = update(fetch_status).where(fetch_status.c.account == account).values(asked=fetch_status.c.asked + 1)
        return int(self._connection.execute(asked.returning(fetch_status.c.asked)).scalar_one())

    def asked(self) -> dict[str, int]:
        """The accounts that somebody asked to fetch at once, with the newest number."""
        table = fetch_status
        rows = self._connection.execute(select(table.c.account, table.c.asked).where(table.c.asked > table.c.answered))
        return {row.account: row.asked for row in rows}

    def claim(self, account: str, owner: str, lease_seconds: float) -> bool:
        """Take or keep the lease of the account; False while another process has it."""
        self.set_status(account)
        now = self._time.now()
        table = fetch_status
        # A lease far in the future was written by a clock that has been set back since.
        far = now + timedelta(seconds=2 * lease_seconds)
        over = (table.c.lease_until <= now) | (table.c.lease_until > far)
        free = table.c.owner.in_((owner, "")) | over
        claimed = self._connection.execute(
            update(table)
            .where(table.c.account == account, free)
            .values(owner=owner, lease_until=now + timedelta(seconds=lease_seconds))
        )
        return bool(claimed.rowcount)

    def release(self, account: str, owner: str) -> None:
        """Give the lease back."""
        table = fetch_status
        self._connection.execute(
            update(table).where(table.c.account == account, table.c.owner == owner).values(owner="", lease_until=None)
        )

    # --- places ---

    def place(self, account: str, key: str, at: datetime) -> FetchPlace:
        """What is known of the place; it is begun when it is new."""
        table = fetch_place
        rows = self._connection.execute(
            select(table.c.place, table.c.mark, table.c.at).where(table.c.account == account).order_by(table.c.at)
        ).all()
        known = next((row for row in rows if row.place == key), None)
        if known is None:
            self._connection.execute(insert(table).values(account=account, place=key, mark=0, at=at))
        since = rows[0].at if rows else at
        mark = known.mark if known is not None else 0
        return FetchPlace(account, key, mark, since.date(), first=not rows)

    def newest_life(self, account: str, base: str) -> int:
        """The highest number N among the places ``BASE:N``; 1 when there is none."""
        table = fetch_place
        keys = self._connection.scalars(select(table.c.place).where(table.c.account == account))
        return max((int(key.rpartition(":")[2]) for key in keys if key.rpartition(":")[0] == base), default=1)

    def set_mark(self, place: FetchPlace, mark: int) -> None:
        """Every id up to the mark was dealt with. A mark never goes back."""
        table = fetch_place
        self._connection.execute(
            update(table)
            .where(table.c.account == place.account, table.c.place == place.key, table.c.mark < mark)
            .values(mark=mark)
        )

    # --- items ---

    def known(self, place: FetchPlace, uids: Collection[str], *, taken: bool = True) -> set[str]:
        """Those of the ids that were dealt with, or are to be tried again in their own time.

        What was gone and is listed again is not among them; with ``taken`` False neither is what was taken and has
        no mark yet.
        """
        found: set[str] = set()
        open_again = [ItemState.GONE.value] + ([] if taken else [ItemState.TAKEN.value])
        settled = fetch_item.c.state.not_in(open_again)
        wanted = list(uids)
        for start in range(0, len(wanted), _CHUNK):
            chunk = wanted[start : start + _CHUNK]
            here = self._of(place, fetch_item.c.uid).where(fetch_item.c.uid.in_(chunk), settled)
            found |= set(self._connection.scalars(here))
        return found

    def absent(self, place: FetchPlace, uids: Collection[str]) -> list[str]:
        """Ids of the place that are not among these, which are all that the mailbox holds, and not known as gone."""
        known = self._connection.scalars(
            self._of(place, fetch_item.c.uid).where(fetch_item.c.state != ItemState.GONE.value)
        )
        listed = set(uids)
        return [uid for uid in known if uid not in listed]

    def vanished(self, place: FetchPlace, uids: Sequence[str]) -> None:
        """The upstream mailbox does not hold them any more."""
        for start in range(0, len(uids), _CHUNK):
            self._connection.execute(
                update(fetch_item)
                .where(*self._here(place), fetch_item.c.uid.in_(uids[start : start + _CHUNK]))
                .values(state=ItemState.GONE.value, trouble="")
            )

    def uids(self, place: FetchPlace, state: ItemState, limit: int) -> list[str]:
        """Ids of the place that are in that state, the oldest first."""
        query = self._of(place, fetch_item.c.uid).where(fetch_item.c.state == state.value)
        return list(self._connection.scalars(query.order_by(fetch_item.c.at).limit(limit)))

    def same(self, account: str, sha256: str) -> str | None:
        """Id of the message that the account brought with this digest before."""
        query = select(fetch_item.c.message_id).where(
            fetch_item.c.account == account, fetch_item.c.sha256 == sha256, fetch_item.c.message_id.is_not(None)
        )
        found: str | None = self._connection.scalar(query.limit(1))
        return found

    def take(self, place: FetchPlace, uid: str, message_id: str, sha256: str, at: datetime) -> None:
        """Remember that the message is ours; to be called in the transaction that makes it so."""
        self._put(place, uid, state=ItemState.TAKEN.value, at=at, sha256=sha256, message_id=message_id, trouble="")

    def marked(self, place: FetchPlace, uids: Sequence[str]) -> None:
        """The upstream mailbox shows that they are taken."""
        for start in range(0, len(uids), _CHUNK):
            self._connection.execute(
                update(fetch_item)
                .where(*self._here(place), fetch_item.c.uid.in_(uids[start : start + _CHUNK]))
                .where(fetch_item.c.state == ItemState.TAKEN.value)
                .values(state=ItemState.MARKED.value)
            )

    def gone(self, place: FetchPlace, uid: str, at: datetime) -> None:
        """Somebody removed it upstream."""
        self._put(place, uid, state=ItemState.GONE.value, at=at, trouble="")

    def trouble(self, place: FetchPlace, uid: str, trouble: ItemTrouble, size_bytes: int | None, at: datetime) -> int:
        """Note a failed attempt; returns how many there were since it was last given a fresh start."""
        before = self._connection.scalar(self._of(place, fetch_item.c.attempts).where(fetch_item.c.uid == uid)) or 0
        values = {"attempts": before + 1, "size_bytes": size_bytes, "trouble": trouble.value}
        self._put(place, uid, state=ItemState.TRYING.value, at=at, **values)
        return before + 1

    def set_aside(self, place: FetchPlace, uid: str) -> None:
        """Give the message up until somebody says ``fetch retry``."""
        self._connection.execute(
            update(fetch_item).where(*self._here(place), fetch_item.c.uid == uid).values(state=ItemState.ASIDE.value)
        )

    def troubled(self, account: str, limit: int = 1000) -> list[FetchItem]:
        """What was set aside or is tried again, the oldest first."""
        states = (ItemState.ASIDE.value, ItemState.TRYING.value)
        rows = self._connection.execute(
            select(fetch_item)
            .where(fetch_item.c.account == account, fetch_item.c.state.in_(states))
            .order_by(fetch_item.c.at)
            .limit(limit)
        )
        return [_item(row) for row in rows]

    def retry(self, item: FetchItem, at: datetime) -> None:
        """Give a message a fresh start."""
        self._connection.execute(
            update(fetch_item)
            .where(fetch_item.c.account == item.account, fetch_item.c.place == item.place, fetch_item.c.uid == item.uid)
            .values(state=ItemState.TRYING.value, attempts=0, at=at)
        )

    # --- inside ---

    def _here(self, place: FetchPlace) -> tuple[Any, ...]:
        return fetch_item.c.account == place.account, fetch_item.c.place == place.key

    def _of(self, place: FetchPlace, column: Any) -> Any:
        return select(column).where(*self._here(place))

    def _put(self, place: FetchPlace, uid: str, **values: Any) -> None:
        changed = self._connection.execute(
            update(fetch_item).where(*self._here(place), fetch_item.c.uid == uid).values(values)
        )
        if not changed.rowcount:
            key = {"account": place.account, "place": place.key, "uid": uid}
            fresh = {"sha256": "", "trouble": "", "attempts": 0}
            self._connection.execute(insert(fetch_item).values({**key, **fresh, **values}))


def _item(row: Row[Any]) -> FetchItem:
    trouble = ItemTrouble(row.trouble)
    return FetchItem(
        row.account, row.place, row.uid, ItemState(row.state), trouble, row.attempts, row.size_bytes, row.at
    )
