"""What is to be handed to the targets of the import hook, and what they have answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol


class DeliveryAction(StrEnum):
    """What a target is asked."""

    IMPORT = "import"
    RETRACT = "retract"


class DeliveryState(StrEnum):
    """How a delivery stands. ``DONE`` is no row of its own: the receipt is."""

    WAITING = "waiting"
    DONE = "done"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One link on its way to one target. ``attempt`` is the fencing token of whoever holds it."""

    id: int
    link_id: str
    target: str
    action: DeliveryAction
    attempt: int
    failures: int
    """Attempts that were answered with a nack, or not in time."""
    lost: int
    """Attempts that ended with their process, one after the other."""
    asked_at: datetime
    """When it was ordered."""
    actor: str = ""
    reason: str = ""
    """Of a retraction: who wants it, and why."""


@dataclass(frozen=True, slots=True)
class ListedDelivery:
    """A delivery as people see it."""

    id: int | None
    """None once it is done: nothing is left to be tried again."""
    link_id: str
    message_id: str
    patient_id: str
    target: str
    action: DeliveryAction
    state: DeliveryState
    failures: int
    at: datetime
    """When it is tried next, was set aside, or was done."""
    running: bool
    """It is with the target at this moment."""
    error: str
    """The reason code of the last failure."""
    receipt: str


@dataclass(frozen=True, slots=True)
class TargetStanding:
    """How a target stands."""

    name: str
    waiting: int
    dead: int
    stopped_since: datetime | None
    stop_reason: str


class DeliveryRows(Protocol):
    """The queues of the targets. A delivery that is acked is gone from here; its receipt is kept for ever.

    Times are told as durations, as those of :class:`gateway.ports.JobRows`, and for the same reason.
    """

    def order(self, link_id: str, targets: Sequence[str]) -> list[str]:
        """Ask for the import of a link; returns the targets that did not have it, nor were asked for it, before.

        Nobody is asked for one that was undone.
        """
        ...

    def order_missing(
        self, target: str, since: datetime | None, after: tuple[datetime, str] | None, limit: int
    ) -> tuple[int, tuple[datetime, str] | None]:
        """Ask a target for older links that it does not have, in the order in which they were made.

        Returns how many were ordered, and where to go on (None at the end).
        """
        ...

    def order_retraction(self, link_id: str, actor: str, reason: str, at: datetime) -> list[str]:
        """Ask every target that has or may have the import of a link to take it back; returns their names.

        An import that was not attempted yet is not made any more; it needs no retraction. One that was set aside, or
        that the target surely has not taken, is let go. A second order changes nothing.
        Raises NotFoundError: no such link.
        """
        ...

    def due(self, targets: Sequence[str]) -> set[str]:
        """Which of these targets, stopped ones left out, have something to do now."""
        ...

    def claim(self, target: str, lease_seconds: float, limit: int) -> list[Delivery]:
        """Lease what is due at a target, the oldest first; nothing while it is stopped."""
        ...

    def finish(self, held: Delivery) -> bool:
        """Remove it; False when the lease was lost to a later attempt."""
        ...

    def fail(self, held: Delivery, reason: str, retry_in: timedelta | None) -> bool:
        """Put it off, or set it aside when ``retry_in`` is None.

        False when it is not open any more: the lease was lost, or it is the import of a link that was undone meanwhile.
        """
        ...

    def hand_back(self, held: Delivery) -> bool:
        """Make it due again, as if it had not been claimed; False when the lease was lost."""
        ...

    def release(self) -> int:
        """Make due what this node held when its process ended; returns how many."""
        ...

    def clock_went_back(self, by: timedelta) -> int:
        """Bring to the clock of now what was put off by one that was ahead; returns how many that were.

        Nothing is done on a database that several nodes use: times are kept in its own clock there.
        """
        ...

    def listed(
        self, *, state: DeliveryState | None = None, target: str | None = None, link_id: str | None = None, limit: int
    ) -> list[ListedDelivery]:
        """Dead ones first, then what waits, the next first, then what is done, the latest first."""
        ...

    def retry(self, delivery_id: int) -> ListedDelivery:
        """Make it due with all its attempts.

        Raises NotFoundError (none open), ConflictError (it runs now).
        """
        ...

    def retry_dead(self, target: str) -> int:
        """The same for everything of a target that was set aside; returns how many."""
        ...

    def stop(self, target: str, reason: str, at: datetime) -> None:
        """Send nothing more to the target until :meth:`start`. What waits goes on waiting."""
        ...

    def start(self, target: str) -> bool:
        """Send to it again; False when it was not stopped."""
        ...

    def standings(self) -> list[TargetStanding]:
        """Every target that something waits for, was set aside for, or that is stopped; by name."""
        ...

    def add_retraction(self, held: Delivery, receipt: str, at: datetime) -> None:
        """Remember that the target has taken it back; a no-op when remembered already."""
        ...

    def retractions(self, link_id: str) -> dict[str, str]:
        """Receipt of the retraction by target."""
        ...
