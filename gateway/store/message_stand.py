"""How a message stands, for the unit of work that moves it on: one question, and then what the unit itself wrote.

To judge a message and file it asks where it stands, which verdict was its last and whether its content is there, and
asks again after each step. Nobody else writes while the unit runs, so one look is enough.

Failure modes: those of the statement. A unit that is undone takes this memory with it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sqlalchemy import Connection, bindparam, func, select

from gateway.core.lifecycle import State
from gateway.store.prepared import Prepared
from gateway.store.tables import message_content, message_state, verdict

_OF_MESSAGE = message_state.c.message_id == bindparam("message")
_NEWEST = select(message_state.c.seq).where(_OF_MESSAGE).order_by(message_state.c.seq.desc()).limit(1)
_STATE = select(message_state.c.state).where(_OF_MESSAGE).order_by(message_state.c.seq.desc()).limit(1)
_VERDICT = select(func.max(verdict.c.seq)).where(verdict.c.message_id == bindparam("message"))
_CONTENT = select(message_content.c.content_sha256).where(message_content.c.message_id == bindparam("message"))
_LOOK = Prepared(
    select(
        _NEWEST.scalar_subquery().label("seq"),
        _STATE.scalar_subquery().label("state"),
        _VERDICT.scalar_subquery().label("verdict"),
        _CONTENT.scalar_subquery().label("content_sha256"),
    )
)


@dataclass(frozen=True, slots=True)
class Stand:
    """How one message stands."""

    seq: int = 0
    """Number of its newest state; 0 for none."""
    state: State | None = None
    verdict: int = 0
    """Number of its newest verdict; 0 for none."""
    content_sha256: str | None = None
    """None while no content is kept."""


class Stands:
    """Of the messages that one unit of work moves on."""

    __slots__ = ("_connection", "_known")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._known: dict[str, Stand] = {}

    def of(self, message_id: str) -> Stand:
        """How the message stands; one that is not there stands nowhere."""
        known = self._known.get(message_id)
        if known is None:
            row = _LOOK.first(self._connection, message=message_id)
            state = None if row.state is None else State(row.state)
            known = Stand(row.seq or 0, state, row.verdict or 0, row.content_sha256)
            self._known[message_id] = known
        return known

    def added(self, message_id: str) -> None:
        """The unit has added the message, whose id nobody had."""
        self._known[message_id] = Stand()

    def moved(self, message_id: str, seq: int, state: State) -> None:
        """The unit has added a state."""
        self._known[message_id] = replace(self.of(message_id), seq=seq, state=state)

    def judged(self, message_id: str, seq: int) -> None:
        """The unit has added a verdict."""
        self._known[message_id] = replace(self.of(message_id), verdict=seq)

    def kept(self, message_id: str, content_sha256: str) -> None:
        """The unit has added the content."""
        self._known[message_id] = replace(self.of(message_id), content_sha256=content_sha256)
