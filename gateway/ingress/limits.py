"""The limits of the SMTP listener, by name, and the counters that enforce them.

Guarantees: nothing here waits, logs or raises for what a client does; every counter that was raised for a
connection or a message is lowered exactly once, however that ends. All state lives on one event loop and needs
no lock. Sources: the limits of Postfix, findings 1 and 4, F18 to F20; RFC 5321 section 4.5.3.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from gateway.core.peers import peer_network
from gateway.settings import SMTPSettings

MIB = 1024 * 1024
COMMAND_LINE_BYTES = 512
"""RFC 5321 section 4.5.3.1.4, with CRLF."""
MAIL_LINE_BYTES = COMMAND_LINE_BYTES + 26 + 17 + 10
"""MAIL may be longer by SIZE (RFC 1870), BODY (RFC 6152) and SMTPUTF8 (RFC 6531)."""
LINE_FLOOD_BYTES = 65_536
"""A line that goes on longer than this is no mistake: the connection is closed."""
RECIPIENT_OVERSHOOT = 1_000
"""So many RCPT beyond the limit are answered 452, so that an honest sender can go on with those it has; then 421."""
CHUNK_BYTES = 65_536
LINGER_SECONDS = 5.0
"""How long a client may take to read our last reply, and how long it may go on sending after that."""


@dataclass(frozen=True, slots=True)
class SMTPLimits:
    """The settings in the units of the code: bytes and seconds."""

    message_bytes: int
    buffered_bytes: int
    recipients: int
    connections: int
    connections_per_peer: int
    messages: int
    idle_commands: int
    command_seconds: float
    data_seconds: float
    data_bytes_per_second: float

    @classmethod
    def of(cls, settings: SMTPSettings) -> SMTPLimits:
        return cls(
            message_bytes=settings.max_message_mib * MIB,
            buffered_bytes=settings.max_buffered_mib * MIB,
            recipients=settings.max_recipients,
            connections=settings.max_connections,
            connections_per_peer=settings.max_connections_per_peer,
            messages=settings.max_messages_per_connection,
            idle_commands=settings.max_commands_without_mail,
            command_seconds=settings.command_timeout_seconds,
            data_seconds=settings.data_timeout_seconds,
            data_bytes_per_second=settings.min_data_rate_bytes_per_second,
        )

    def data_seconds_left(self, elapsed: float, received: int) -> float:
        """Seconds that the next bytes of a message may take to come; zero or less when the sender is too slow.

        Three clocks, the strictest wins: silence (EP-9), the whole message, and the average rate, which begins
        to bind after one command timeout so that a slow start is forgiven.
        """
        by_rate = self.command_seconds + received / self.data_bytes_per_second
        return min(self.command_seconds, self.data_seconds - elapsed, by_rate - elapsed)


class ByteBudget:
    """Bytes of message that all connections together may hold at this moment."""

    def __init__(self, total_bytes: int) -> None:
        self._total = total_bytes
        self._used = 0

    @property
    def free_bytes(self) -> int:
        return self._total - self._used

    def reservation(self) -> Reservation:
        return Reservation(self)

    def _take(self, count: int) -> bool:
        if count > self.free_bytes:
            return False
        self._used += count
        return True

    def _give_back(self, count: int) -> None:
        self._used -= count


class Reservation:
    """The share that one message holds; it grows with the message and is given back as a whole, once."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._held = 0

    def grow(self, count: int) -> bool:
        """Take more; False, and nothing taken, when the budget has no room."""
        if not self._budget._take(count):  # noqa: SLF001 - the two halves of one counter
            return False
        self._held += count
        return True

    def release(self) -> None:
        self._budget._give_back(self._held)  # noqa: SLF001
        self._held = 0


class ConnectionCounter:
    """Open connections, in total and per peer."""

    def __init__(self, total: int, per_peer: int) -> None:
        self._total = total
        self._per_peer = per_peer
        self._open: Counter[str] = Counter()

    def enter(self, peer: str) -> bool:
        """Count a connection in; False, and not counted, when either limit is reached."""
        network = peer_network(peer)
        if self._open.total() >= self._total or self._open[network] >= self._per_peer:
            return False
        self._open[network] += 1
        return True

    def leave(self, peer: str) -> None:
        network = peer_network(peer)
        self._open[network] -= 1
        if not self._open[network]:
            # Peers come and go for months: an empty counter per peer would be a leak.
            del self._open[network]
