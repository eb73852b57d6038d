"""What the one writer need not ask again: within a transaction, and of what never changes, for as long as its session.

Each question to a server costs a wait while everybody else's mail waits too. Two kinds of answers are known already:

* The head of this node's audit chain. Whoever writes has the writers' lock until the end of the transaction, so what
  one unit appended last is the head for the next unit of the group.
* Digests under which something is stored in a table by digest (certificates, revocation data, sets of anchors). Those
  tables are append-only: what was committed once is there.

Guarantees: a unit that is undone takes back what it told; nothing is known of a digest before the COMMIT of the
transaction that saw it has succeeded, because an earlier unit of that very transaction may have brought it. A session
that is lost takes all of it with it, so a server that was put back to an earlier state is asked anew.

Failure modes: none. Whoever has no memory (readers, tools, revisions) asks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sqlalchemy import Connection, Table

MOST_DIGESTS: Final = 50_000
"""About 8 MB. Then it begins anew."""
_KEY: Final = "group_memory"
_Head = tuple[int, bytes]
_Digest = tuple[str, str]


class GroupMemory:
    """Of one writing session; told by :class:`gateway.store.group_commit.GroupCommitter` how its units end."""

    __slots__ = ("_committed", "_heads", "_of_unit", "_seen")

    def __init__(self) -> None:
        self._heads: dict[str, _Head] = {}
        self._of_unit: dict[str, _Head] = {}
        self._committed: set[_Digest] = set()
        self._seen: set[_Digest] = set()

    # --- how it goes on ---

    def forget_transaction(self) -> None:
        """A transaction begins, or has failed."""
        self._heads.clear()
        self._of_unit.clear()
        self._seen.clear()

    def unit_succeeded(self) -> None:
        """What the unit wrote belongs to the transaction."""
        self._heads.update(self._of_unit)
        self._of_unit.clear()

    def unit_undone(self) -> None:
        """Nothing that the unit wrote is there. What it has seen may have been its own."""
        self._of_unit.clear()
        self._seen.clear()

    def committed(self) -> None:
        """The transaction is durable."""
        if len(self._committed) + len(self._seen) > MOST_DIGESTS:
            self._committed.clear()
        self._committed |= self._seen
        self.forget_transaction()

    # --- what is known ---

    def head(self, node: str) -> tuple[int, bytes] | None:
        """Number and hash of the newest audit event of the node; None when it must be asked for."""
        return self._of_unit.get(node) or self._heads.get(node)

    def appended(self, node: str, head: tuple[int, bytes]) -> None:
        """A unit has appended an event."""
        self._of_unit[node] = head

    def knows(self, table: Table, digest: str) -> bool:
        """Whether something is stored under the digest; False when it must be asked for."""
        return (table.name, digest) in self._committed

    def saw(self, table: Table, digests: Iterable[str]) -> None:
        """Something is stored under these digests, as far as this transaction sees."""
        self._seen.update((table.name, digest) for digest in digests)


def begin_memory(connection: Connection) -> GroupMemory:
    """The memory of the session, at the beginning of a transaction."""
    memory: GroupMemory = connection.info.setdefault(_KEY, GroupMemory())
    memory.forget_transaction()
    return memory


def memory_of(connection: Connection) -> GroupMemory | None:
    """The memory of the session; None for whoever is not the one writer."""
    memory: GroupMemory | None = connection.info.get(_KEY)
    return memory
