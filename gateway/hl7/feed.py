"""The ADT feed of an EHR: each message is applied to the patient index, durably, and then acknowledged (HL7-7, HL7-8).

Guarantees

* AA is said after the commit only, and the commit holds the patient, what became of the message, and the event of the
  audit log. A message that is sent again because its AA was lost changes nothing and is answered AA again. It is known
  by its sender, its control id and its digest: another content under a number that was used before is another message,
  as engines begin to count anew.
* An event that happened before the newest one that was applied to a patient never overwrites anything.
* A merge makes the losing record inactive and keeps whose it is now. The addresses that were documented for the loser
  are from then on documented for the survivor, unconfirmed: the EHR says that both are one person, but a wrong merge is
  a known accident, so mail from such an address waits for a person until the address is said of the survivor himself.
  The loser keeps none: mail never links to him by itself, and an address that both had is the survivor's alone.
* What is refused is kept for the operator (``patient feed``): sender, number, event, and which field is wrong, without
  any value.

Failure modes: none of :meth:`PatientFeed.take`. AE when the store cannot commit now, or at a fault of ours; AR for what
can never be applied as it is. A kill at any moment leaves either nothing or the whole event.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from gateway.core.errors import NotFoundError, StoreError
from gateway.core.hl7 import HL7Error, read_message
from gateway.hl7.acknowledgement import Answer, Code, Head, acknowledge
from gateway.hl7.adt import MERGING, REMOVING, ADTMessage, ADTRules, PatientGroup, read_adt
from gateway.hl7.patient_update import MAX_ADDRESSES, Known, Update, updated
from gateway.observability.log import get_log
from gateway.ports import Clock, FeedEntry, FeedOutcome, Patient, PatientDetail, Store, UnitOfWork

ACTOR = "adt"
SOURCE = "adt-feed"
TRY_AGAIN = HL7Error("the message cannot be stored at this moment; send it again")

log = get_log("adt")


@dataclass(frozen=True, slots=True)
class _Arrived:
    """A message, as the store knows it."""

    head: Head
    sha256: str
    at: datetime

    @property
    def sender(self) -> str:
        return "|".join(self.head.sending)

    def entry(self, outcome: FeedOutcome, patient_id: str, reason: str = "") -> FeedEntry:
        return FeedEntry(
            self.sender, self.head.control_id, self.sha256, outcome, self.at, self.head.event, patient_id, reason
        )


class PatientFeed:
    """Takes ADT messages, in any order and from several connections at once."""

    def __init__(self, store: Store, clock: Clock, rules: ADTRules, new_id: Callable[[], str], max_bytes: int) -> None:
        """``new_id`` makes the control ids of our answers; ``max_bytes`` is the limit of one message."""
        self._store = store
        self._clock = clock
        self._rules = rules
        self._new_id = new_id
        self._max_bytes = max_bytes

    async def take(self, octets: bytes) -> bytes:
        """Apply a message and return the acknowledgement. Raises nothing."""
        at = self._clock.now()
        head = Head()
        try:
            head, answer = await self._answer(octets, at)
        except StoreError as exc:
            log.warning("adt_not_stored", exc=exc)
            answer = Answer(Code.ERROR, error=TRY_AGAIN)
            head = _head_of(octets, self._max_bytes)
        except Exception as exc:  # noqa: BLE001 - a fault of ours must not cost the message, nor the connection
            log.fault("adt_fault", exc)
            answer = Answer(Code.ERROR, error=TRY_AGAIN)
            head = _head_of(octets, self._max_bytes)
        return acknowledge(answer, head, at, self._new_id())

    async def _answer(self, octets: bytes, at: datetime) -> tuple[Head, Answer]:
        head, digest = Head(), hashlib.sha256(octets).hexdigest()
        try:
            message = read_message(octets, max_bytes=self._max_bytes)
            head = Head.of(message)
            event = read_adt(message, self._rules, at)
            if event is None:
                log.info("adt_ignored")
                return head, Answer(Code.ACCEPT)
            head = replace(head, event=event.event)
            arrived = _Arrived(head, digest, at)
            entry = await self._store.write(lambda tx: _apply(tx, event, arrived, self._rules))
        except HL7Error as error:
            return head, await self._refuse(error, _Arrived(head, digest, at))
        log.info("adt_taken", result=entry.outcome)
        return head, Answer(Code.ACCEPT)

    async def _refuse(self, error: HL7Error, arrived: _Arrived) -> Answer:
        """Keep what is refused, then say so. Raises StoreError: not kept, so it is not refused either."""

        def work(tx: UnitOfWork) -> None:
            entry = arrived.entry(FeedOutcome.REFUSED, "", str(error))
            if tx.patient_feed.record(entry):
                tx.audit.add(arrived.at, ACTOR, "patient.refused", SOURCE, {"code": error.code})

        await self._store.write(work)
        place = f"{error.segment}.{error.field}" if error.segment else "message"
        log.warning("adt_refused", reason=place.lower())
        return Answer(Code.REJECT, error=error)


def _head_of(octets: bytes, max_bytes: int) -> Head:
    try:
        return Head.of(read_message(octets, max_bytes=max_bytes))
    except HL7Error:
        return Head()


def _apply(tx: UnitOfWork, message: ADTMessage, arrived: _Arrived, rules: ADTRules) -> FeedEntry:
    """One transaction. Raises HL7Error: nothing of it may be kept."""
    settled = tx.patient_feed.settled(arrived.sender, arrived.head.control_id, arrived.sha256)
    patient_id = message.groups[0].patient_id
    if settled is not None:
        return arrived.entry(settled, patient_id)
    applied = _Application(tx, message, arrived, rules)
    for group in message.groups:
        applied.one(group)
    outcome = FeedOutcome.APPLIED if applied.changed else FeedOutcome.OLDER if applied.older else FeedOutcome.UNCHANGED
    entry = arrived.entry(outcome, patient_id, applied.notice)
    tx.patient_feed.record(entry)
    ids = [group.patient_id for group in message.groups]
    detail: dict[str, object] = {"event": message.event, "outcome": outcome.value, "patients": ids}
    if losers := [group.loser_id for group in message.groups if group.loser_id]:
        detail["merged"] = losers
    tx.audit.add(arrived.at, ACTOR, "patient.fed", SOURCE, detail)
    return entry


class _Application:
    """Applies the groups of one message within one transaction."""

    def __init__(self, tx: UnitOfWork, message: ADTMessage, arrived: _Arrived, rules: ADTRules) -> None:
        self._tx = tx
        self._message = message
        self._at = arrived.at
        self._rules = rules
        self.changed = False
        self.older = False
        self.notice = ""

    def one(self, group: PatientGroup) -> None:
        """Apply one group. Raises HL7Error."""
        moved: tuple[str, ...] = ()
        if self._message.event in MERGING and group.loser_id:
            moved = self._merge(group)
        self._update(group, moved)

    def _update(self, group: PatientGroup, moved: tuple[str, ...]) -> None:
        tx, moment = self._tx, self._message.event_at
        known = _known(tx, group.patient_id)
        newest = tx.patient_feed.newest_event(group.patient_id)
        merged = tx.patient_feed.merged_into([group.patient_id])
        merge_at = tx.patient_feed.merge_event(group.patient_id) if merged else None
        late = any(known_at is not None and moment.end < known_at for known_at in (newest, merge_at))
        # Read in any case: what can never be applied is refused, whenever it comes.
        update = updated(known, group, self._message.event, self._rules)
        if late and known.patient is not None:
            self.older = True
            update = Update(known.patient, known.detail, known.unconfirmed)
        elif self._message.event in REMOVING:
            update = replace(update, patient=replace(update.patient, active=False))
        update = _with_addresses(update, moved)
        if merged:
            self._hand_over(group.patient_id, update.patient.direct_addresses)
            retired = replace(update.patient, active=False, direct_addresses=())
            update = replace(update, patient=retired, unconfirmed=frozenset())
        elif self._message.event in MERGING and not late:
            # The EHR names it as the record that remains.
            update = replace(update, patient=replace(update.patient, active=True))
        self.notice = self.notice or update.notice
        self._store(update)
        if not late and (newest is None or moment.begin > newest):
            tx.patient_feed.add_event(group.patient_id, moment.begin, self._at, SOURCE)

    def _merge(self, group: PatientGroup) -> tuple[str, ...]:
        """Make the losing record part of the other; return the addresses that are the survivor's from now on."""
        feed, moment = self._tx.patient_feed, self._message.event_at
        loser_at, survivor_at = feed.merge_event(group.loser_id), feed.merge_event(group.patient_id)
        for known_at in (loser_at, survivor_at if group.loser_id in _chain(self._tx, group.patient_id) else None):
            if known_at is not None and moment.end < known_at:
                self.older = True
                return ()
        event_at = max((moment.begin, *(known for known in (loser_at, survivor_at) if known and known <= moment.end)))
        said = feed.merge(group.loser_id, group.patient_id, event_at, self._at, SOURCE)
        if survivor_at is None or survivor_at <= moment.end:
            said = feed.merge(group.patient_id, None, event_at, self._at, SOURCE) or said
        self.changed = self.changed or said
        loser = _known(self._tx, group.loser_id)
        if loser.patient is None:
            return ()
        moved = loser.patient.direct_addresses
        retired = replace(loser.patient, active=False, direct_addresses=())
        self.changed = bool(self._tx.patients.upsert([retired], SOURCE, self._at)) or self.changed
        return moved

    def _hand_over(self, patient_id: str, addresses: tuple[str, ...]) -> None:
        """Document the addresses of a merged record for the record that it is part of in the end."""
        survivor_id = _survivor(self._tx, patient_id)
        known = _known(self._tx, survivor_id)
        if addresses and survivor_id != patient_id and known.patient is not None:
            self._store(_with_addresses(Update(known.patient, known.detail, known.unconfirmed), addresses))

    def _store(self, update: Update) -> None:
        patient_id = update.patient.id
        changed = self._tx.patients.upsert(
            [update.patient], SOURCE, self._at, unconfirmed={patient_id: update.unconfirmed}
        )
        detailed = self._tx.patient_feed.set_detail(patient_id, update.detail, self._at, SOURCE)
        self.changed = self.changed or bool(changed) or detailed


def _known(tx: UnitOfWork, patient_id: str) -> Known:
    try:
        patient: Patient | None = tx.patients.get(patient_id)
    except NotFoundError:
        patient = None
    detail = tx.patient_feed.details([patient_id]).get(patient_id, PatientDetail())
    return Known(patient, detail, tx.patients.unconfirmed([patient_id]).get(patient_id, frozenset()))


def _with_addresses(update: Update, moved: tuple[str, ...]) -> Update:
    """Document the addresses of a record that was merged into this one, unconfirmed."""
    mine = update.patient.direct_addresses
    new = tuple(address for address in moved if address not in mine)[: MAX_ADDRESSES - len(mine)]
    return replace(
        update,
        patient=replace(update.patient, direct_addresses=(*mine, *new)),
        unconfirmed=update.unconfirmed | set(new),
    )


def _survivor(tx: UnitOfWork, patient_id: str) -> str:
    """The record that it is part of now, over however many others; itself when it stands for itself."""
    return _chain(tx, patient_id)[-1]


def _chain(tx: UnitOfWork, patient_id: str) -> list[str]:
    """The record, and one after the other what it was merged into; never a record twice."""
    chain = [patient_id]
    while (into := tx.patient_feed.merged_into(chain[-1:]).get(chain[-1])) is not None and into not in chain:
        chain.append(into)
    return chain
