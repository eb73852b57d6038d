"""What the gateway tells mail clients of a message that it has filed: its keywords, and the view that holds it.

======================================  ==========================================================  ==========
the message is                          keywords                                                    view
======================================  ==========================================================  ==========
filed, nothing decided yet              ``$DirectVerified``                                         unlinked
left to a person by the link step       ``$DirectVerified $DirectNeedsReview``                      unlinked
looked at by a person, on no chart      ``$DirectVerified $DirectReviewed``                         unlinked
on a chart                              ``$DirectVerified $DirectLinked``                           linked
on a chart, and looked at               ``$DirectVerified $DirectLinked $DirectReviewed``           linked
======================================  ==========================================================  ==========

*Reviewed* says that a person has looked at the message, and ends the wish for one; it puts the message on no chart, so
it stays in the unlinked queue until it is linked (S33, S53). When the review is taken back, the wish is there again.

``$DirectVerified``, ``$DirectLinked`` and ``$DirectNeedsReview`` are the gateway's alone: a mail client can neither set
nor remove them. ``$DirectReviewed`` is set by people, and each change of it is a row of the store.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

VERIFIED: Final = "$DirectVerified"
LINKED: Final = "$DirectLinked"
NEEDS_REVIEW: Final = "$DirectNeedsReview"
REVIEWED: Final = "$DirectReviewed"
PROTECTED: Final = frozenset({VERIFIED, LINKED, NEEDS_REVIEW})
"""Keywords that the gateway sets and removes, and nobody else."""
KEYWORDS: Final = PROTECTED | {REVIEWED}
"""Every keyword that :attr:`Standing.keywords` decides on."""


class View(StrEnum):
    """A part of a mailbox that is shown as a folder of its own. Every received message is in one of them."""

    UNLINKED = "unlinked"
    LINKED = "linked"


class ReviewState(StrEnum):
    """What a row about a review says; the newest counts."""

    REVIEWED = "reviewed"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class Standing:
    """How a verified message stands."""

    linked: bool = False
    """Whether it is on a chart."""
    decided: bool = False
    """Whether the link step has looked at it."""
    reviewed: bool = False
    """Whether a person has looked at it."""

    @property
    def keywords(self) -> frozenset[str]:
        """The keywords that it has; it has no other one of :data:`KEYWORDS`."""
        found = {VERIFIED}
        if self.linked:
            found.add(LINKED)
        elif self.decided and not self.reviewed:
            found.add(NEEDS_REVIEW)
        if self.reviewed:
            found.add(REVIEWED)
        return frozenset(found)

    @property
    def view(self) -> View:
        """Where it is shown besides its mailbox."""
        return View.LINKED if self.linked else View.UNLINKED

    def flags(self, current: frozenset[str]) -> frozenset[str]:
        """The flags of a message that has ``current`` ones now: what people set stays."""
        return (current - KEYWORDS) | self.keywords


FILED: Final = Standing()
"""Of a message that the link step has not looked at."""
