"""The mailboxes of one account by their names, as RFC 3501 6.3 has them made, removed and renamed."""

from __future__ import annotations

from collections.abc import Callable

from gateway.core.errors import ConflictError, NotFoundError, RefusedError
from gateway.inbox.mutable.mailbox import MemoryMailbox
from gateway.inbox.service import INBOX

SEPARATOR = "/"


class MailboxTree:
    """INBOX is always there. ``make`` gives a new mailbox."""

    def __init__(self, make: Callable[[], MemoryMailbox]) -> None:
        self._make = make
        self._by_name = {INBOX: make()}
        self.subscribed: set[str] = set()

    def names(self) -> list[str]:
        """INBOX first, the others in order."""
        return sorted(self._by_name, key=lambda name: (name != INBOX, name))

    def get(self, name: str) -> MemoryMailbox:
        """The mailbox of that name. Raises NotFoundError."""
        found = self._by_name.get(canonical_name(name))
        if found is None:
            raise NotFoundError("No such mailbox")
        return found

    def create(self, name: str) -> None:
        """Make a mailbox. A separator at the end says that there will be others below it.

        Raises ConflictError, RefusedError.
        """
        self._by_name[self._free(name)] = self._make()

    def delete(self, name: str) -> None:
        """Remove a mailbox; those below it stay. Raises NotFoundError, RefusedError."""
        self.get(name)
        if canonical_name(name) == INBOX:
            raise RefusedError("INBOX cannot be deleted")
        del self._by_name[canonical_name(name)]

    def rename(self, old: str, new: str) -> MemoryMailbox | None:
        """Rename a mailbox and those below it. INBOX stays where it is: its messages are to go to what is returned.

        Raises NotFoundError, ConflictError, RefusedError.
        """
        old, target = canonical_name(old), self._free(new)
        if old == INBOX:
            self._by_name[target] = self._make()
            return self._by_name[target]
        moving = [name for name in self._by_name if name == old or name.startswith(old + SEPARATOR)]
        if not moving:
            raise NotFoundError("No such mailbox")
        if target.startswith(old + SEPARATOR):
            raise RefusedError("A mailbox cannot be moved below itself")
        renamed = {name: target + name[len(old) :] for name in moving}
        if not self._by_name.keys().isdisjoint(renamed.values()):
            raise ConflictError("There is a mailbox of that name")
        for name, to in renamed.items():
            self._by_name[to] = self._by_name.pop(name)
        return None

    def _free(self, name: str) -> str:
        wanted = canonical_name(name.removesuffix(SEPARATOR))
        if not all(wanted.split(SEPARATOR)) or any(map(_is_surrogate, wanted)):
            raise RefusedError("No mailbox can have that name")
        if wanted in self._by_name:
            raise ConflictError("There is a mailbox of that name")
        return wanted


def _is_surrogate(character: str) -> bool:
    """Whether it is half of a pair alone, which no encoding of a name can hold."""
    return "\ud800" <= character <= "\udfff"


def canonical_name(name: str) -> str:
    """The name under which a mailbox is kept: INBOX is one in any case, also above others (RFC 3501 5.1)."""
    first, separator, rest = name.partition(SEPARATOR)
    return (INBOX if first.upper() == INBOX else first) + separator + rest
