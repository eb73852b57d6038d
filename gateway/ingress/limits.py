"""The limits of the SMTP listener, by name, and the counters that enforce them.

Guarantees: nothing here waits, logs or raises for what a client does; every counter that was raised for a
connection or a message is lowered exactly once, however that ends. All state lives on one event loop and needs
no lock. Sources: the limits of Postfix, findings 1 and 4, F18 to F20; RFC 5321 section 4.5.3.

Stress mode is Postfix's: when more than ``STRESS_SHARE`` of the connection slots are in use, silence is suffered for
seconds instead of minutes, and a client that only talks is sent away early. The same is done to a single network whose
own slots are all in use while it wants more. Nothing that is under way is cut short:
a command that has begun to be served, a message that keeps coming and a commit are as safe as ever.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

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
STRESS_SHARE = 0.8
STRESS_IDLE_COMMANDS = 10
MINUTE_SECONDS = 60.0
HOUR_SECONDS = 3600.0
TOLD_PER_MINUTE = 300
"""So many refusals of one network are written to the log in a minute: a client that is refused costs no disk."""
LINGER_SECONDS = 5.0
"""How long a client may take to read our last reply, and how long it may go on sending after that."""


@dataclass(frozen=True, slots=True)
class SMTPLimits:
    """The settings in the units of the code: bytes and seconds."""

    message_bytes: int
    arriving_bytes: int
    """Of all messages that are arriving, in memory and in the spool."""
    arriving_share_bytes: int
    """Of those of one network: half of them, and at least one message of the largest size."""
    memory_bytes: int
    """Of those of them that are not in the spool."""
    spool_above_bytes: int
    recipients: int
    connections: int
    connections_per_peer: int
    messages: int
    idle_commands: int
    command_seconds: float
    stress_seconds: float
    data_seconds: float
    data_bytes_per_second: float
    connections_per_minute: int
    messages_per_minute: int
    recipients_per_hour: int

    @classmethod
    def of(cls, settings: SMTPSettings) -> SMTPLimits:
        return cls(
            message_bytes=settings.max_message_mib * MIB,
            arriving_bytes=settings.max_buffered_mib * MIB,
            arriving_share_bytes=max(settings.max_buffered_mib * MIB // 2, settings.max_message_mib * MIB + MIB),
            memory_bytes=settings.max_in_memory_mib * MIB,
            spool_above_bytes=settings.spool_above_kib * 1024,
            recipients=settings.max_recipients,
            connections=settings.max_connections,
            connections_per_peer=settings.max_connections_per_peer,
            messages=settings.max_messages_per_connection,
            idle_commands=settings.max_commands_without_mail,
            command_seconds=settings.command_timeout_seconds,
            stress_seconds=min(settings.stress_timeout_seconds, settings.command_timeout_seconds),
            data_seconds=settings.data_timeout_seconds,
            data_bytes_per_second=settings.min_data_rate_bytes_per_second,
            connections_per_minute=settings.max_connections_per_minute_per_peer,
            messages_per_minute=settings.max_messages_per_minute_per_peer,
            recipients_per_hour=settings.max_recipients_per_hour_per_peer,
        )

    def silence_seconds(self, *, stressed: bool) -> float:
        """How long a client may say nothing."""
        return self.stress_seconds if stressed else self.command_seconds

    def data_seconds_left(self, elapsed: float, received: int, *, stressed: bool = False) -> float:
        """Seconds that the next bytes of a message may take to come; zero or less when the sender is too slow.

        Three clocks, the strictest wins: silence (EP-9), the whole message, and the average rate, which begins
        to bind after one command timeout so that a slow start is forgiven.
        """
        silence = self.silence_seconds(stressed=stressed)
        by_rate = silence + received / self.data_bytes_per_second
        return min(silence, self.data_seconds - elapsed, by_rate - elapsed)


class ByteBudget:
    """Bytes that all connections together may hold at this moment: of messages, or of memory for them.

    Args:
        total_bytes: of all.
        share_bytes: of one network, so that no single client can take the room of all others; None = all of it.
    """

    def __init__(self, total_bytes: int, share_bytes: int | None = None) -> None:
        self._total = total_bytes
        self._share = total_bytes if share_bytes is None else share_bytes
        self._used = 0
        self._by_network: Counter[str] = Counter()

    @property
    def free_bytes(self) -> int:
        return self._total - self._used

    def free_for(self, network: str) -> int:
        """Bytes that the network may take now."""
        return min(self.free_bytes, self._share - self._by_network.get(network, 0))

    def reservation(self, network: str = "") -> Reservation:
        return Reservation(self, network)

    def _take(self, count: int, network: str) -> bool:
        if count > self.free_for(network):
            return False
        self._used += count
        self._by_network[network] += count
        return True

    def _give_back(self, count: int, network: str) -> None:
        self._used -= count
        self._by_network[network] -= count
        if self._by_network[network] <= 0:
            # As with connections: an empty counter for everybody who ever came would be a leak.
            del self._by_network[network]


class Reservation:
    """The share that one message holds; it grows with the message and is given back as a whole, once."""

    def __init__(self, budget: ByteBudget, network: str = "") -> None:
        self._budget = budget
        self._network = network
        self._held = 0

    def grow(self, count: int) -> bool:
        """Take more; False, and nothing taken, when the budget has no room."""
        if not self._budget._take(count, self._network):  # noqa: SLF001 - the two halves of one counter
            return False
        self._held += count
        return True

    def release(self) -> None:
        self._budget._give_back(self._held, self._network)  # noqa: SLF001
        self._held = 0


class ConnectionCounter:
    """Open connections, in total and per network (see :func:`gateway.core.peers.peer_network`)."""

    def __init__(self, total: int, per_peer: int) -> None:
        self._total = total
        self._per_peer = per_peer
        self._open: Counter[str] = Counter()

    @property
    def total(self) -> int:
        return self._open.total()

    @property
    def full(self) -> bool:
        """Whether there is no room for anybody."""
        return self.total >= self._total

    @property
    def stressed(self) -> bool:
        """Whether more than ``STRESS_SHARE`` of the slots are in use."""
        return self.total > STRESS_SHARE * self._total

    def stressed_from(self, network: str) -> bool:
        """The same of what one network may have."""
        return self.open_from(network) > STRESS_SHARE * self._per_peer

    def has_room(self, network: str) -> bool:
        """Whether one more of the network could be counted in."""
        return not self.full and self.open_from(network) < self._per_peer

    def open_from(self, network: str) -> int:
        return self._open.get(network, 0)

    def enter(self, network: str) -> bool:
        """Count a connection in; False, and not counted, when either limit is reached."""
        if not self.has_room(network):
            return False
        self._open[network] += 1
        return True

    def leave(self, network: str) -> None:
        self._open[network] -= 1
        if not self._open[network]:
            # Peers come and go for months: an empty counter per peer would be a leak.
            del self._open[network]
