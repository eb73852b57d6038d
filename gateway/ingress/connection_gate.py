"""Who may be connected, and how much each network may ask for.

Guarantees

* Connections with a slot are bounded in total, per network and per minute. Who has none is bounded as well, to
  ``BESIDE_CONNECTIONS``: those who wait for a slot, and those who were sent away and linger to read why. Beyond that
  the one that has lingered for longest is dropped, then the one that has waited for longest; never the newcomer.
* Nobody can keep others out by sitting on the slots (F19, F20). A newcomer gets the slot of an idle session: when all
  are taken, of the network that holds the most, if that is more than his own; or else of his own. So it does not matter
  either whether the crowd shares an address with a sender (a relay, or a router with one address for all behind it).
* A session is never taken for that while a message arrives or is kept, nor while it is on its way there: in a
  transaction, in a handshake, or idle for an instant. But who has come no further after ``STALLED_AFTER_SECONDS``
  counts as idle, whatever it says; a sender that works needs a fraction of that. While there are only such, the
  newcomer waits without a greeting: a reply to come again costs a sender minutes, a moment costs it nothing. Whose
  network holds the least goes first, and of those who came last: under a flood the older ones have often given up, and
  no queue of them can stand before a sender.
* Near the limit, in total or of one network, the sessions concerned are hurried (stress mode, limits.py).
* A limit that is hit is logged once per network and window, whatever the flood; so are refusals beyond a number.

Failure modes: none; a refusal is a fixed temporary reply.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from itertools import chain

from gateway.core.peers import peer_network
from gateway.ingress import replies
from gateway.ingress.doorstep import Doorstep
from gateway.ingress.limits import HOUR_SECONDS, MINUTE_SECONDS, TOLD_PER_MINUTE, ConnectionCounter, SMTPLimits
from gateway.ingress.rates import RateLimit
from gateway.ingress.session import Session
from gateway.observability.log import EventLog

EVICT_AFTER_SECONDS = 0.5
"""So long a session must have been idle to lose its slot: a round trip must not look like idling."""
STALLED_AFTER_SECONDS = 3.0
"""So long a session that is not idle may have its slot without a message on its way. Less than a newcomer waits."""
WAIT_SECONDS = 5.0
"""How long a newcomer may wait for a slot, without a greeting, before it is sent away."""
BESIDE_CONNECTIONS = 1_000
"""Connections without a slot: waiting for one, or sent away and reading why."""
LOOK_SECONDS = 0.1
"""How often slots are looked for, at the least, while somebody waits; an end of a session is acted on at once."""
SHORTEST_LOOK_SECONDS = 0.01
"""... and at the most."""
EVICTIONS_PER_LOOK = 2
"""Of those who wait, so many get the slot of somebody else at a time: a crowd that waits must not turn over all day."""


Connection = Session | Doorstep


@dataclass(frozen=True, slots=True, eq=False)
class _Idle:
    """A session whose slot may be taken."""

    session: Session
    network: str
    stalled: bool
    """In a transaction or a handshake in which nothing happens. Of one network those who are merely idle go first."""
    seconds: float


class ConnectionGate:
    """The connections of one listener. All calls are made on its event loop."""

    def __init__(self, limits: SMTPLimits, log: EventLog) -> None:
        self._limits = limits
        self._log = log
        self._counter = ConnectionCounter(limits.connections, limits.connections_per_peer)
        self._connections = RateLimit(limits.connections_per_minute, MINUTE_SECONDS)
        self._messages = RateLimit(limits.messages_per_minute, MINUTE_SECONDS)
        self._recipients = RateLimit(limits.recipients_per_hour, HOUR_SECONDS)
        self._told = RateLimit(TOLD_PER_MINUTE, MINUTE_SECONDS)
        self._full = RateLimit(0, MINUTE_SECONDS)
        """Counts nothing: it only knows whom a refusal for want of a slot was logged for."""
        self._networks: dict[Connection, str] = {}
        """Of everybody who is connected. Kept because who leaves cannot be asked for its peer any more."""
        self._counted: set[Session] = set()
        """Those with a slot."""
        self._waiting: dict[Doorstep, float] = {}
        """Since when."""
        self._lingering: dict[Connection, None] = {}
        """Both in the order in which they came."""
        self._look: asyncio.TimerHandle | None = None
        self._looked_at = 0.0
        self._nobody_idle_until = 0.0
        """Before this time of the loop no session will have been idle for long enough."""
        self._stressed = False
        self._stressed_networks: set[str] = set()
        self._closed = False

    @property
    def stressed(self) -> bool:
        """Whether more than 80 % of the slots are in use."""
        return self._stressed

    def hurries(self, session: Session) -> bool:
        """Whether a session is to be hurried: slots are scarce, in all or for its network."""
        return self._stressed or self._networks.get(session) in self._stressed_networks

    def connections(self) -> list[Connection]:
        """Everybody who is connected, those who wait and those who were sent away included."""
        return list(self._networks)

    def sessions(self) -> list[Session]:
        """Those of them who were let in."""
        return [one for one in self._networks if isinstance(one, Session)]

    def close(self) -> None:
        """Send away who waits, and from now on everybody."""
        self._closed = True
        for newcomer in list(self._waiting):
            self._send_away(newcomer, replies.SHUTTING_DOWN)

    # --- coming and going ---

    def enter(self, newcomer: Doorstep) -> None:
        """Let a connection in, now or in a moment, or send it away. leave() follows, of it or of its session."""
        network = self._networks[newcomer] = peer_network(newcomer.peer)
        now = self._now()
        if self._closed:
            self._send_away(newcomer, replies.SHUTTING_DOWN)
        elif not self._within(self._connections, newcomer, "connections_per_minute"):
            self._send_away(newcomer, replies.CONNECTION_RATE)
        elif not self._let_in(newcomer, []):
            self._waiting[newcomer] = now
            self._note_want(network)
            # Not at once: under a flood it would be for each of them.
            self._look_at(max(self._nobody_idle_until, now))
        self._drop_who_is_too_many(newcomer)

    def ending(self, session: Session) -> None:
        """Free the slot of a session that only lingers until its client has read the last reply."""
        if session in self._counted:
            self._uncount(session)
            self._lingering[session] = None
            self._drop_who_is_too_many(session)
            self._look_for_waiting()

    def leave(self, connection: Connection) -> None:
        """Count a connection out; a no-op for one that is not known."""
        if isinstance(connection, Session):
            self._uncount(connection)
        else:
            self._waiting.pop(connection, None)
        self._lingering.pop(connection, None)
        self._networks.pop(connection, None)
        self._look_for_waiting()

    # --- rates ---

    def may_send(self, session: Session) -> bool:
        """Count a message."""
        return self._within(self._messages, session, "messages_per_minute")

    def may_address(self, session: Session) -> bool:
        """Count a recipient, known here or not."""
        return self._within(self._recipients, session, "recipients_per_hour")

    def may_tell(self, session: Session) -> bool:
        """Whether one more refusal of its network may be written to the log; that they are left out is written once."""
        return self._within(self._told, session, "refusals_told_per_minute")

    def _within(self, rate: RateLimit, connection: Connection, rule: str) -> bool:
        network, now = self._networks.get(connection, ""), self._now()
        if rate.allows(network, now):
            return True
        if rate.first_refusal(network, now):
            self._log.warning("smtp_rate_limited", peer=connection.peer, rule=rule, limit=rate.limit)
        return False

    # --- slots ---

    def _let_in(self, newcomer: Doorstep, idle: list[_Idle]) -> bool:
        """Give it a slot, a free one or that of one of the idle sessions, which is taken off the list."""
        network = self._networks[newcomer]
        victim = None
        if not self._counter.has_room(network):
            victim = self._victim_for(network, idle)
            if victim is None:
                return False
        session = newcomer.let_in()
        del self._networks[newcomer]
        if session is None:
            # It has gone; its place is not needed.
            return True
        if victim is not None:
            idle.remove(victim)
            # Its socket lingers until it has read why; its slot is free at once.
            self._uncount(victim.session)
            self._lingering[victim.session] = None
            victim.session.evict()
        self._networks[session] = network
        self._counter.enter(network)
        self._counted.add(session)
        self._note_stress(network)
        return True

    def _victim_for(self, network: str, idle: list[_Idle]) -> _Idle | None:
        """Who must go for a newcomer: of the network that holds the most, who has been idle for longest."""
        held = self._counter.open_from(network)
        at_own_limit = held >= self._limits.connections_per_peer

        def may_go(one: _Idle) -> bool:
            return one.network == network or (not at_own_limit and self._counter.open_from(one.network) > held)

        return max(
            filter(may_go, idle),
            key=lambda one: (self._counter.open_from(one.network), not one.stalled, one.seconds),
            default=None,
        )

    def _idle_sessions(self, now: float) -> list[_Idle]:
        """Who may lose a slot, if it comes to that. Goes through all only when that can find somebody."""
        if now < self._nobody_idle_until:
            return []
        idle: list[_Idle] = []
        soonest = EVICT_AFTER_SECONDS
        for session in self._counted:
            silent, stalled = session.idle_seconds(), session.stalled_seconds()
            if silent is not None and silent >= EVICT_AFTER_SECONDS:
                idle.append(_Idle(session, self._networks[session], stalled=False, seconds=silent))
            elif stalled is not None and stalled >= STALLED_AFTER_SECONDS:
                idle.append(_Idle(session, self._networks[session], stalled=True, seconds=stalled))
            else:
                soonest = min(soonest, EVICT_AFTER_SECONDS - (silent or 0), STALLED_AFTER_SECONDS - (stalled or 0))
        if not idle:
            # Who is not idle yet, or not connected yet, can be no sooner than this.
            self._nobody_idle_until = now + soonest
        return idle

    def _look_for_waiting(self, when: float = 0.0) -> None:
        if self._waiting:
            self._look_at(when)

    def _look_at(self, when: float) -> None:
        """Look for slots then, or sooner when that was arranged already, and once more after LOOK_SECONDS."""
        when = max(min(when, self._now() + LOOK_SECONDS), self._looked_at + SHORTEST_LOOK_SECONDS)
        if self._look is None or self._look.when() > when:
            if self._look is not None:
                self._look.cancel()
            self._look = asyncio.get_running_loop().call_at(when, self._look_for_slots)

    def _look_for_slots(self) -> None:
        """Let in who waits, and send away who has waited for too long."""
        self._look = None
        now = self._looked_at = self._now()
        idle = self._idle_sessions(now)
        enough = len(idle) - EVICTIONS_PER_LOOK
        without: set[str] = set()
        for newcomer in self._by_need():
            network = self._networks[newcomer]
            if network in without:
                continue
            if self._let_in(newcomer, idle if len(idle) > enough else []):
                del self._waiting[newcomer]
            elif self._counter.full and len(idle) <= enough:
                break
            else:
                without.add(network)
        for newcomer, since in list(self._waiting.items()):
            if now - since < WAIT_SECONDS:
                break
            self._refuse(newcomer)
        self._look_for_waiting(max(self._nobody_idle_until, now))

    def _by_need(self) -> list[Doorstep]:
        """Those who wait, in the order in which they get a slot."""
        newest_first = list(reversed(self._waiting))
        return sorted(newest_first, key=lambda one: self._counter.open_from(self._networks[one]))

    # --- those without a slot ---

    def _refuse(self, newcomer: Doorstep) -> None:
        """Send one away that has waited for a slot."""
        self._send_away(newcomer, replies.TOO_MANY_CONNECTIONS)
        if self._full.first_refusal(self._networks[newcomer], self._now()):
            self._log.warning("smtp_too_many_connections", peer=newcomer.peer, connections=self._counter.total)

    def _send_away(self, newcomer: Doorstep, reply: str) -> None:
        self._waiting.pop(newcomer, None)
        self._lingering[newcomer] = None
        newcomer.send_away(reply)

    def _drop_who_is_too_many(self, newest: Connection) -> None:
        while len(self._waiting) + len(self._lingering) > BESIDE_CONNECTIONS:
            connection = next((one for one in chain(self._lingering, self._waiting) if one is not newest), newest)
            if isinstance(connection, Doorstep) and connection in self._waiting:
                self._refuse(connection)
            del self._lingering[connection]
            connection.abort()

    def _uncount(self, session: Session) -> None:
        if session in self._counted:
            network = self._networks[session]
            self._counted.discard(session)
            self._counter.leave(network)
            self._note_stress(network)

    # --- stress ---

    def _note_want(self, network: str) -> None:
        """Begin the stress of a network that has as many connections as it may have, and wants more."""
        if self._counter.stressed_from(network) and network not in self._stressed_networks:
            self._stressed_networks.add(network)
            self._hurry(network)

    def _note_stress(self, network: str) -> None:
        """Begin or end stress after the number of a network's connections has changed."""
        if not self._counter.stressed_from(network):
            self._stressed_networks.discard(network)
        stressed = self._counter.stressed
        if stressed == self._stressed:
            return
        self._stressed = stressed
        if stressed:
            self._log.warning("smtp_stress_began", connections=self._counter.total)
            self._hurry(None)
        else:
            self._log.info("smtp_stress_ended", connections=self._counter.total)

    def _hurry(self, network: str | None) -> None:
        for session in self._counted:
            if network is None or self._networks[session] == network:
                session.hurry(self._limits.stress_seconds)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
