"""The life of an inbound message: states, and what each move writes. Every rule about it stands here.

=============  =======  ===========  ============  ==================  ==============================================
state          raw row  content row  mailbox rows  job that is due     a crash here
=============  =======  ===========  ============  ==================  ==============================================
(nothing)      no       no           no            none                no 250 was said; the sender retries
received       yes      no           no            unwrap              the job is claimed again; judging is pure
unwrapped      yes      yes          no            file                filing again is a no-op by unique keys
filed          yes      yes          yes           link                linking again is a no-op by unique keys
linked         yes      yes          yes           import (per link)   the importer sees the same link id again
refused        yes      no           no            none                verdict and reason are kept; may be run again
=============  =======  ===========  ============  ==================  ==============================================

A message that is filed and matches no patient stays ``filed``: that is the unlinked queue. ``refused`` is the
quarantine; ``received`` may follow it when an operator runs the message again after a repair.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where a message stands; kept as an append-only row for each move."""

    RECEIVED = "received"
    UNWRAPPED = "unwrapped"
    FILED = "filed"
    LINKED = "linked"
    REFUSED = "refused"


class JobKind(StrEnum):
    """The work that a committed row asks for. One kind is one step of the pipeline."""

    UNWRAP = "unwrap"
    FILE = "file"
    LINK = "link"
    IMPORT = "import"


MOVES: dict[State, frozenset[State]] = {
    State.RECEIVED: frozenset({State.UNWRAPPED, State.REFUSED}),
    State.UNWRAPPED: frozenset({State.FILED}),
    State.FILED: frozenset({State.LINKED}),
    State.LINKED: frozenset(),
    State.REFUSED: frozenset({State.RECEIVED}),
}
"""The only moves there are."""


def may_move(here: State, there: State) -> bool:
    """Whether the table allows the move."""
    return there in MOVES[here]
