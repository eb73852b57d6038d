"""What the store remembers of fetching from upstream mailboxes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Protocol

from gateway.core.fetching import FetchItem, FetchPlace, FetchStatus, ItemState, ItemTrouble


class FetchRows(Protocol):
    """How each upstream mailbox stands, and what was taken from it. Mutable."""

    def status(self, account: str) -> FetchStatus:
        """How the account stands; a fresh one when it was never heard of."""
        ...

    def set_status(self, account: str, **values: Any) -> None:
        """Change fields of the account's status; what is not named stays."""
        ...

    def ask(self, account: str) -> int:
        """Ask whoever works on the account to fetch at once; returns the number under which that is answered."""
        ...

    def asked(self) -> dict[str, int]:
        """The accounts that somebody asked to fetch at once, with the newest number."""
        ...

    def claim(self, account: str, owner: str, lease_seconds: float) -> bool:
        """Take or keep the lease of the account from now on; False while another process has it."""
        ...

    def release(self, account: str, owner: str) -> None:
        """Give the lease back."""
        ...

    def place(self, account: str, key: str, at: datetime) -> FetchPlace:
        """What is known of the place; it is begun when it is new."""
        ...

    def newest_life(self, account: str, base: str) -> int:
        """The highest number N among the places ``BASE:N``; 1 when there is none."""
        ...

    def set_mark(self, place: FetchPlace, mark: int) -> None:
        """Every id up to the mark was dealt with. A mark never goes back."""
        ...

    def known(self, place: FetchPlace, uids: Collection[str], *, taken: bool = True) -> set[str]:
        """Those of the ids that were dealt with, or are to be tried again in their own time.

        What was gone and is listed again is not among them; with ``taken`` False neither is what was taken and has
        no mark yet.
        """
        ...

    def absent(self, place: FetchPlace, uids: Collection[str]) -> list[str]:
        """Ids of the place that are not among these, which are all that the mailbox holds, and not known as gone."""
        ...

    def vanished(self, place: FetchPlace, uids: Sequence[str]) -> None:
        """The upstream mailbox does not hold them any more."""
        ...

    def uids(self, place: FetchPlace, state: ItemState, limit: int) -> list[str]:
        """Ids of the place that are in that state, the oldest first."""
        ...

    def same(self, account: str, sha256: str) -> str | None:
        """Id of the message that the account brought with this digest before."""
        ...

    def take(self, place: FetchPlace, uid: str, message_id: str, sha256: str, at: datetime) -> None:
        """Remember that the message is ours; to be called in the transaction that makes it so."""
        ...

    def marked(self, place: FetchPlace, uids: Sequence[str]) -> None:
        """The upstream mailbox shows that they are taken."""
        ...

    def gone(self, place: FetchPlace, uid: str, at: datetime) -> None:
        """Somebody removed it upstream."""
        ...

    def trouble(self, place: FetchPlace, uid: str, trouble: ItemTrouble, size_bytes: int | None, at: datetime) -> int:
        """Note a failed attempt; returns how many there were since it was last given a fresh start."""
        ...

    def set_aside(self, place: FetchPlace, uid: str) -> None:
        """Give the message up until somebody says ``fetch retry``."""
        ...

    def troubled(self, account: str, limit: int = 1000) -> list[FetchItem]:
        """What was set aside or is tried again, the oldest first."""
        ...

    def retry(self, item: FetchItem, at: datetime) -> None:
        """Give a message a fresh start."""
        ...
