r"""What a client may do to the flags of a message that is never deleted (the no-delete rules).

Pure rules. ``\Deleted``, ``\Draft``, ``\Recent`` and system flags nobody defined are never stored. The other
flags are the one mutable part of a mailbox; each follows a right of RFC 4314: ``s`` for ``\Seen``, ``w`` for
the rest. What the gateway says itself of a message (:mod:`gateway.core.standing`) no client sets or removes. A review
is a client's word, but kept for good: it is taken back when somebody removes that very keyword, and not by a program
that replaces all flags without having heard of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from gateway.core.errors import RefusedError
from gateway.core.standing import KEYWORDS, PROTECTED, REVIEWED

SEEN = "\\Seen"
DELETED = "\\Deleted"
RECENT = "\\Recent"
SYSTEM_FLAGS = ("\\Answered", "\\Flagged", "\\Deleted", "\\Seen", "\\Draft")
STORABLE_SYSTEM_FLAGS = frozenset({"\\Answered", "\\Flagged", SEEN})
USUAL_KEYWORDS = ("$Forwarded", "$MDNSent", *sorted(KEYWORDS))
"""Which every mailbox lists, in their spelling."""
_PROTECTED = frozenset(keyword.lower() for keyword in PROTECTED)
SUPPORTED_RIGHTS = "lrswia"
"""Of RFC 4314, in its order: see, read, keep seen, write flags, insert, administer. Nobody may delete or create."""
MAX_KEYWORD_CHARACTERS = 100
MAX_KEYWORDS_OF_A_COMMAND = 64
MAX_KEYWORDS_OF_A_MAILBOX = 500
_CANONICAL_SYSTEM = {flag.lower(): flag for flag in SYSTEM_FLAGS}


class FlagAction(Enum):
    """The three forms of STORE."""

    ADD = "+"
    REMOVE = "-"
    REPLACE = ""


@dataclass(frozen=True, slots=True)
class FlagChange:
    """What STORE asks for, in canonical spelling."""

    action: FlagAction
    flags: frozenset[str]

    @property
    def asks_for_deletion(self) -> bool:
        """Whether the client marks the message as deleted."""
        return self.action is not FlagAction.REMOVE and DELETED in self.flags

    def apply(self, current: frozenset[str], rights: str) -> frozenset[str]:
        """The flags afterwards; what may not be changed stays as it is."""
        mine = {flag for flag in self.flags | current if _may_change(flag, rights)}
        if self.action is FlagAction.REPLACE and REVIEWED in current:
            mine.discard(REVIEWED)
        wanted = self.flags & mine
        if self.action is FlagAction.ADD:
            return current | wanted
        if self.action is FlagAction.REMOVE:
            return current - wanted
        return (current - mine) | wanted


def is_storable(flag: str) -> bool:
    """Whether a client's flag is kept at all: Seen, Answered, Flagged and keywords that are not the gateway's own."""
    return flag in STORABLE_SYSTEM_FLAGS if flag.startswith("\\") else not is_protected(flag)


def is_protected(flag: str) -> bool:
    """Whether it is a keyword that the gateway alone sets and removes, in whatever spelling."""
    return flag.lower() in _PROTECTED


def _may_change(flag: str, rights: str) -> bool:
    if not is_storable(flag):
        return False
    return ("s" if flag == SEEN else "w") in rights


def permanent_flags(rights: str) -> tuple[str, ...]:
    """The PERMANENTFLAGS of a mailbox opened for writing."""
    seen = (SEEN,) if "s" in rights else ()
    keywords = tuple(keyword for keyword in USUAL_KEYWORDS if not is_protected(keyword))
    return (*seen, "\\Answered", "\\Flagged", *keywords, "\\*") if "w" in rights else seen


def visible_rights(rights: str, supported: str = SUPPORTED_RIGHTS) -> str:
    """Those of the rights that mean anything here, in their usual order."""
    return "".join(right for right in supported if right in rights)


def canonical(flag: str, keywords: Mapping[str, str]) -> str:
    """The spelling under which a flag is kept: flags are case-insensitive, the first spelling stays.

    ``keywords`` maps lower-case keywords of the mailbox to their spelling.
    """
    lower = flag.lower()
    if flag.startswith("\\"):
        return _CANONICAL_SYSTEM.get(lower, flag)
    return keywords.get(lower, flag)


def check_limits(change: FlagChange, keywords: Mapping[str, str]) -> None:
    """Raise RefusedError when a new keyword is too long or there would be too many of them."""
    if change.action is FlagAction.REMOVE:
        return
    asked = {flag.lower(): flag for flag in change.flags if not flag.startswith("\\")}
    if any(len(flag) > MAX_KEYWORD_CHARACTERS for flag in asked):
        raise RefusedError("Keyword too long")
    if len(asked) > MAX_KEYWORDS_OF_A_COMMAND or len(keywords.keys() | asked.keys()) > MAX_KEYWORDS_OF_A_MAILBOX:
        raise RefusedError("Too many keywords")
