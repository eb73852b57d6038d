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
kept           yes      no           yes           none                nothing: the state is written with all the rest
=============  =======  ===========  ============  ==================  ==============================================

A message that meets no fault goes from ``received`` to ``filed``, and on to ``linked``, within one transaction that
writes every state on the way (:mod:`gateway.pipeline.onward`): then there is no crash between them. Whatever is met
half done goes step by step, each with its job.

A message that is filed and matches no patient stays ``filed``: that is the unlinked queue. One whose last link a
person has undone is ``filed`` again, with no job: the link step does not come back to it. ``refused`` is the
quarantine; ``received`` may follow it when an operator runs the message again after a repair.

``kept`` is no part of that life: a message that a mail client put into Sent, its copy of what it sent, begins and ends
there. It is never judged, filed or linked.
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
    KEPT = "kept"


FIRST = frozenset({State.RECEIVED, State.KEPT})
"""Where a message may begin."""


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
    State.LINKED: frozenset({State.FILED}),
    State.REFUSED: frozenset({State.RECEIVED}),
    State.KEPT: frozenset(),
}
"""The only moves there are."""


def may_move(here: State, there: State) -> bool:
    """Whether the table allows the move."""
    return there in MOVES[here]
