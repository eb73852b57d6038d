r"""Whether messages can be deleted, as a value that the IMAP engine is given, so that it has no branches for it.

:data:`NO_DELETE` is the gateway's rule: ``\Deleted`` is never kept, so nothing can be expunged, and the rights that
speak of deletion are nobody's. :data:`MUTABLE` is an ordinary mail server, for the conformance tests of the engine
alone (:mod:`gateway.inbox.mutable`).
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.inbox.flags import (
    DELETED,
    STORABLE_SYSTEM_FLAGS,
    SUPPORTED_RIGHTS,
    FlagAction,
    FlagChange,
    is_protected,
    permanent_flags,
)

DRAFT = "\\Draft"


@dataclass(frozen=True, slots=True)
class DeletionPolicy:
    """What follows for a session from whether messages can be deleted."""

    system_flags: frozenset[str]
    """The system flags that are kept."""
    supported_rights: str
    """The rights of RFC 4314 that somebody may have, in their usual order."""
    close_expunges: bool
    """Whether CLOSE removes what is marked as deleted (RFC 3501 6.4.2)."""
    all_recent: bool = False
    r"""Whether what is in a mailbox at the first look came in this process's life, so that it is \Recent."""
    capabilities: tuple[str, ...] = ()
    """What is offered on top of what the engine always offers."""

    def keeps(self, flag: str) -> bool:
        """Whether the flag, in canonical spelling, is kept at all."""
        return flag in self.system_flags if flag.startswith("\\") else not is_protected(flag)

    def drops(self, change: FlagChange) -> bool:
        """Whether a flag is asked for that is never kept: the client must then be shown the true ones.

        To take away a system flag that is never there is no such case; a keyword of the gateway's own may be there.
        """
        removes = change.action is FlagAction.REMOVE
        return any(not self.keeps(flag) for flag in change.flags if not (removes and flag.startswith("\\")))

    def permanent_flags(self, rights: str) -> tuple[str, ...]:
        """The PERMANENTFLAGS of a mailbox opened for writing."""
        usual = permanent_flags(rights)
        return (*sorted(self.system_flags - STORABLE_SYSTEM_FLAGS), *usual) if "w" in rights else usual


NO_DELETE = DeletionPolicy(STORABLE_SYSTEM_FLAGS, SUPPORTED_RIGHTS, close_expunges=False)
"""EP-29: the mail client is shown that it cannot delete, and an attempt changes nothing."""
MUTABLE = DeletionPolicy(
    STORABLE_SYSTEM_FLAGS | {DELETED, DRAFT},
    "lrswipkxtea",
    close_expunges=True,
    all_recent=True,
    capabilities=("MOVE",),
)
