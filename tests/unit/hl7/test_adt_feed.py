"""The ADT feed over the real store: what changes, what never does, and what is answered (HL7-7, HL7-8)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from gateway.core.audit import AuditQuery
from gateway.core.errors import NotFoundError, StoreFullError
from gateway.core.hl7 import Message, read_message
from gateway.core.matching import DecisionKind, Ground, decide
from gateway.hl7.acknowledgement import Code, read_answer
from gateway.hl7.adt import ADTRules, IdentifierRule
from gateway.hl7.feed import PatientFeed
from gateway.ports import FeedEntry, FeedOutcome, Patient, PatientDetail, UnitOfWork
from gateway.store.sql_store import SQLStore
from gateway.store.tables import patient_version
from tests.support.stores import STORES

NOW = datetime(2026, 6, 1, 9, 0, tzinfo=UTC)
RULES = ADTRules(patient=IdentifierRule("HOSP", "MR"), mrn=IdentifierRule("HOSP", "MR"))
_numbers = itertools.count(1)


class Still:
    def now(self) -> datetime:
        return NOW


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SQLStore]:
    """SQLite, or what a test names."""
    with STORES[getattr(request, "param", "sqlite")](tmp_path) as opened:
        yield opened


on_every_engine = pytest.mark.parametrize("store", sorted(STORES), indirect=True)


def feed_of(store: SQLStore, rules: ADTRules = RULES) -> PatientFeed:
    return PatientFeed(store, Still(), rules, lambda: f"ACK{next(_numbers)}", 1 << 20)


def adt(
    event: str = "A08",
    pid: str = "1||7^^^HOSP^MR||Quimby^Ann||19610203|F",
    *more: str,
    at: str = "20260601080000",
    control: str = "",
    msh_11: str = "P",
) -> bytes:
    control = control or f"C{next(_numbers)}"
    head = f"MSH|^~\\&|EHR|HOSP|DIRECTGW|CLINIC|20260601085959||ADT^{event}|{control}|{msh_11}|2.5.1"
    return "\r".join([head, f"EVN|{event}|{at}", f"PID|{pid}", *more, ""]).encode()


async def code(feed: PatientFeed, octets: bytes) -> str:
    answer = read_answer(await feed.take(octets))
    sent = octets.split(b"|")[9].decode() if octets.startswith(b"MSH") else ""
    assert answer.control_id == sent
    return answer.code.value


def read(store: SQLStore, work: Callable[[UnitOfWork], Any]) -> Any:
    return store.read_blocking(work)


def patient(store: SQLStore, patient_id: str = "7") -> Patient:
    found: Patient = read(store, lambda tx: tx.patients.get(patient_id))
    return found


def entries(store: SQLStore, *, unapplied: bool = False) -> list[FeedEntry]:
    found: list[FeedEntry] = read(store, lambda tx: tx.patient_feed.entries(unapplied=unapplied, limit=100))
    return found


def decided(store: SQLStore, address: str) -> tuple[DecisionKind, str | None, str]:
    book = read(store, lambda tx: tx.patients.address_book(address))
    patients = {entry.patient_id: patient(store, entry.patient_id) for entry in book}
    made = decide(address, book, patients, automatic=True)
    return made.kind, made.patient_id, made.rule.partition(":")[2]


def versions(store: SQLStore) -> int:
    def work(tx: UnitOfWork) -> int:
        held: Any = tx.patients
        return int(held._connection.execute(select(func.count()).select_from(patient_version)).scalar_one())

    return int(read(store, work))


@pytest.mark.parametrize("event", ["A01", "A04", "A05", "A08", "A28", "A31"])
async def test_each_of_these_events_adds_the_patient_with_all_that_it_says(store: SQLStore, event: str) -> None:
    pid = (
        "1||7^^^HOSP^MR~99^^^OTHER^MR||Quimby^Ann^Q~Weber^Ann^^^^^M||19610203|F|Bird^Ann||1 Elm St^^Town^MA^02139"
        "||555-1234^PRN^PH~^NET^Internet^ann@mail.example~^NET^DIRECT^ann@patients.direct.example|||||||||||||||||N"
    )
    assert await code(feed_of(store), adt(event, pid)) == "AA"
    assert patient(store) == Patient(
        id="7", mrn="7", family="Quimby", given="Ann Q", birth_date=date(1961, 2, 3), sex="female", phone="555-1234",
        address_line="1 Elm St", city="Town", postal_code="02139", direct_addresses=("ann@patients.direct.example",),
    )  # fmt: skip
    detail: PatientDetail = read(store, lambda tx: tx.patient_feed.details(["7"]))["7"]
    assert [name.family for name in detail.names] == ["Weber", "Bird"]
    assert [(i.value, i.assigner) for i in detail.identifiers] == [("7", "HOSP"), ("99", "OTHER")]
    assert detail.emails == ("ann@mail.example",)
    assert decided(store, "ann@patients.direct.example") == (DecisionKind.AUTOMATIC, "7", Ground.SOLE_PATIENT)
    assert decided(store, "ann@mail.example")[2] == Ground.NOT_DOCUMENTED


@on_every_engine
async def test_an_empty_field_keeps_and_two_quotes_delete(store: SQLStore) -> None:
    feed = feed_of(store)
    await code(feed, adt("A04", "1||7^^^HOSP^MR||Quimby^Ann||19610203|F|||1 Elm^^Town^^02139||555-1234"))
    assert await code(feed, adt("A08", '1||7^^^HOSP^MR||Weber^Ann||||||""||', at="20260601081000")) == "AA"
    found = patient(store)
    assert (found.family, found.birth_date, found.sex, found.phone) == ("Weber", date(1961, 2, 3), "female", "555-1234")
    assert (found.address_line, found.city, found.postal_code) == ("", "", "")


@on_every_engine
async def test_the_same_message_again_is_accepted_and_changes_nothing(store: SQLStore) -> None:
    feed = feed_of(store)
    first = adt("A08", control="SAME1")
    assert await code(feed, first) == "AA"
    later = adt("A08", "1||7^^^HOSP^MR||Weber^Ann", at="20260601081000")
    assert await code(feed, later) == "AA"
    before = versions(store)
    assert await code(feed, first) == "AA"
    assert versions(store) == before
    assert patient(store).family == "Weber"
    assert len(entries(store)) == 2


async def test_another_content_under_a_number_that_was_used_is_another_message(store: SQLStore) -> None:
    feed = feed_of(store)
    await code(feed, adt("A08", control="1"))
    assert await code(feed, adt("A08", "1||8^^^HOSP^MR||Doe^Jo", control="1")) == "AA"
    assert patient(store, "8").family == "Doe"


@pytest.mark.parametrize("late", ["20260601075959", "202606010759", "20260531"])
async def test_an_older_event_never_overwrites_a_newer_one(store: SQLStore, late: str) -> None:
    feed = feed_of(store)
    await code(feed, adt("A08", "1||7^^^HOSP^MR||Weber^Ann", at="20260601080000"))
    before = versions(store)
    assert await code(feed, adt("A08", "1||7^^^HOSP^MR||Quimby^Ann", at=late)) == "AA"
    assert patient(store).family == "Weber"
    assert versions(store) == before
    assert [entry.outcome for entry in entries(store, unapplied=True)] == [FeedOutcome.OLDER]


async def test_an_unchanged_event_still_counts_as_the_newest(store: SQLStore) -> None:
    feed = feed_of(store)
    await code(feed, adt(at="20260601070000"))
    await code(feed, adt(at="20260601083000"))
    await code(feed, adt("A08", "1||7^^^HOSP^MR||Wrong^Ann", at="20260601080000"))
    assert patient(store).family == "Quimby"


async def test_a_coarse_time_of_the_same_day_and_a_time_to_come_are_applied_as_they_arrive(store: SQLStore) -> None:
    feed = feed_of(store)
    await code(feed, adt(at="20990101"))
    assert await code(feed, adt("A08", "1||7^^^HOSP^MR||Weber^Ann", at="20260601")) == "AA"
    assert patient(store).family == "Weber"


@pytest.mark.parametrize("event", ["A02", "A03", "A11", "A12", "A13", "A60"])
async def test_events_about_visits_are_accepted_and_ignored(store: SQLStore, event: str) -> None:
    assert await code(feed_of(store), adt(event, "1||nothing of this is read")) == "AA"
    assert entries(store) == []
    with pytest.raises(NotFoundError):
        patient(store)


@pytest.mark.parametrize(
    ("octets", "segment", "field"),
    [
        (b"nothing at all", "MSH", 0),
        (adt("A37"), "MSH", 9),
        (adt("Z99"), "MSH", 9),
        (adt().replace(b"ADT^A08", b"ORU^R01"), "MSH", 9),
        (adt(msh_11="T"), "MSH", 11),
        (adt(control="|"), "MSH", 10),
        (adt(at="yesterday"), "EVN", 2),
        (adt("A08", "1||7^^^ELSEWHERE^MR||SECRETNAME"), "PID", 3),
        (adt("A08", "1||7^^^HOSP^AN||SECRETNAME"), "PID", 3),
        (adt("A08", "1||7^^^HOSP^MR~8^^^HOSP^MR||SECRETNAME"), "PID", 3),
        (adt("A08", "1||SECRET NAME^^^HOSP^MR"), "PID", 3),
        (adt("A08", "1||123-45-6789^^^HOSP^MR"), "PID", 3),
        (adt("A08", "1||7^^^HOSP^MR||Q^A||SECRETDATE"), "PID", 7),
        (adt("A08", f"1||7^^^HOSP^MR||{'S' * 300}^A"), "PID", 5),
        (adt("A08", "1||7^^^HOSP^MR||SECRETNAME\u202eX^A"), "PID", 5),
        (adt("A40", "1||7^^^HOSP^MR"), "MRG", 0),
        (adt("A40", "1||7^^^HOSP^MR", "MRG|7^^^HOSP^MR"), "MRG", 1),
        (adt("A40", "1||7^^^HOSP^MR", "MRG|8^^^ELSEWHERE^MR"), "MRG", 1),
    ],
)
async def test_what_can_never_be_applied_is_rejected_by_place_without_a_value_and_kept(
    store: SQLStore, octets: bytes, segment: str, field: int
) -> None:
    answer = await feed_of(store).take(octets)
    message = read_message(answer)
    assert message.first("MSA").text(1) == "AR"  # type: ignore[union-attr]
    err = message.first("ERR")
    assert err is not None
    assert (err.text(2, 1), err.text(2, 3)) == (segment, str(field) if field else "")
    assert err.text(3, 3) == "HL70357"
    assert err.text(4) == "E"
    for secret in (b"SECRET", b"123-45", b"SSS"):
        assert secret not in answer
    kept = entries(store, unapplied=True)
    assert [entry.outcome for entry in kept] == [FeedOutcome.REFUSED]
    assert "SECRET" not in kept[0].reason
    # A sender that repeats it does not fill the database.
    await feed_of(store).take(octets)
    assert len(entries(store)) == 1


async def test_what_was_refused_is_applied_when_it_comes_again_and_the_settings_fit(store: SQLStore) -> None:
    octets = adt("A08", "1||7^^^NEW^MR||Quimby^Ann")
    assert await code(feed_of(store), octets) == "AR"
    other = ADTRules(patient=IdentifierRule("new", ""), mrn=IdentifierRule("new", "MR"))
    assert await code(feed_of(store, other), octets) == "AA"
    assert patient(store).family == "Quimby"


async def test_a_store_that_cannot_commit_is_answered_ae_and_the_message_is_taken_later(
    store: SQLStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed, octets = feed_of(store), adt()

    async def full(_work: object) -> None:
        raise StoreFullError("no space left")

    with monkeypatch.context() as broken:
        broken.setattr(store, "write", full)
        assert await code(feed, octets) == "AE"
    assert entries(store) == []
    assert await code(feed, octets) == "AA"
    assert patient(store).family == "Quimby"


async def test_a_fault_of_ours_is_answered_ae(store: SQLStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.hl7.feed.read_adt", lambda *_: 1 / 0)
    assert await code(feed_of(store), adt()) == "AE"


async def test_deceased_and_inactive_never_link_by_themselves(store: SQLStore) -> None:
    feed, mark = feed_of(store), "^NET^DIRECT^ann@patients.direct.example"
    base = f"1||7^^^HOSP^MR||Quimby^Ann||19610203|F|||||{mark}"
    await code(feed, adt("A04", base, at="202606010100"))
    assert decided(store, "ann@patients.direct.example")[0] is DecisionKind.AUTOMATIC
    await code(feed, adt("A08", base + "||||||||||||||||20260530|", at="202606010200"))
    assert decided(store, "ann@patients.direct.example")[2] == Ground.DECEASED
    await code(feed, adt("A08", base + '||||||||||||||||""|N', at="202606010300"))
    await code(feed, adt("A29", base, at="202606010400"))
    assert decided(store, "ann@patients.direct.example")[2] == Ground.INACTIVE
    await code(feed, adt("A08", base, at="202606010500"))
    assert not patient(store).active
    await code(feed, adt("A28", base, at="202606010600"))
    assert decided(store, "ann@patients.direct.example")[0] is DecisionKind.AUTOMATIC


async def test_direct_addresses_are_added_or_replaced_as_the_settings_say(store: SQLStore) -> None:
    both = "1||7^^^HOSP^MR||||||||||^NET^DIRECT^one@d.example~^NET^DIRECT^two@d.example~^NET^DIRECT^not an address"
    one = "1||7^^^HOSP^MR||||||||||^NET^DIRECT^three@d.example"
    feed = feed_of(store)
    assert await code(feed, adt("A08", both, at="202606010100")) == "AA"
    assert entries(store)[0].reason == "PID-13: a Direct address cannot be read and was left out"
    await code(feed, adt("A08", one, at="202606010200"))
    assert patient(store).direct_addresses == ("one@d.example", "two@d.example", "three@d.example")
    replacing = ADTRules(RULES.patient, RULES.mrn, replaces_addresses=True)
    await code(feed_of(store, replacing), adt("A08", one, at="202606010300"))
    assert patient(store).direct_addresses == ("three@d.example",)


async def _two_with_addresses(store: SQLStore, feed: PatientFeed, *, shared: bool = False) -> None:
    for number, name in (("7", "keep"), ("8", "keep" if shared else "lose")):
        pid = f"1||{number}^^^HOSP^MR||Quimby^Ann||19610203|F|||||^NET^DIRECT^{name}@d.example"
        assert await code(feed, adt("A04", pid, at="202606010100")) == "AA"


@pytest.mark.parametrize("event", ["A40", "A34", "A39", "A47"])
async def test_a_merge_makes_the_loser_inactive_and_hands_its_addresses_over_unconfirmed(
    store: SQLStore, event: str
) -> None:
    feed = feed_of(store)
    await _two_with_addresses(store, feed)
    merge = adt(event, "1||7^^^HOSP^MR||Quimby^Anna", "MRG|8^^^HOSP^MR", at="202606010200")
    assert await code(feed, merge) == "AA"
    assert read(store, lambda tx: tx.patient_feed.merged_into(["7", "8"])) == {"8": "7"}
    assert (patient(store, "8").active, patient(store, "8").direct_addresses) == (False, ())
    assert patient(store).direct_addresses == ("keep@d.example", "lose@d.example")
    assert patient(store).given == "Anna"
    assert decided(store, "keep@d.example") == (DecisionKind.AUTOMATIC, "7", Ground.SOLE_PATIENT)
    assert decided(store, "lose@d.example")[2] == Ground.UNCONFIRMED
    # A change of the survivor does not confirm it by the way; what says it of him does.
    await code(feed, adt("A08", "1||7^^^HOSP^MR||Quimby^Ann", at="202606010300"))
    assert decided(store, "lose@d.example")[2] == Ground.UNCONFIRMED
    confirm = "1||7^^^HOSP^MR||||||||||^NET^DIRECT^lose@d.example"
    await code(feed, adt("A08", confirm, at="202606010400"))
    assert decided(store, "lose@d.example") == (DecisionKind.AUTOMATIC, "7", Ground.SOLE_PATIENT)


async def test_an_address_that_both_records_had_is_the_survivors_alone(store: SQLStore) -> None:
    feed = feed_of(store)
    await _two_with_addresses(store, feed, shared=True)
    assert decided(store, "keep@d.example")[2] == Ground.SHARED
    await code(feed, adt("A40", "1||7^^^HOSP^MR", "MRG|8^^^HOSP^MR", at="202606010200"))
    assert decided(store, "keep@d.example") == (DecisionKind.AUTOMATIC, "7", Ground.SOLE_PATIENT)


async def test_nothing_brings_a_merged_record_back_but_a_newer_merge(store: SQLStore) -> None:
    feed = feed_of(store)
    await _two_with_addresses(store, feed)
    await code(feed, adt("A40", "1||7^^^HOSP^MR", "MRG|8^^^HOSP^MR", at="202606010200"))
    mark = "1||8^^^HOSP^MR||Quimby^Ann||19610203|F|||||^NET^DIRECT^new@d.example"
    await code(feed, adt("A28", mark, at="202606010300"))
    assert (patient(store, "8").active, patient(store, "8").direct_addresses) == (False, ())
    assert decided(store, "new@d.example")[2] == Ground.UNCONFIRMED
    exported = Patient(id="8", family="Quimby", direct_addresses=("new@d.example",))
    await store.write(lambda tx: tx.patients.upsert([exported], "csv-file", NOW))
    assert not patient(store, "8").active
    await code(feed, adt("A40", "1||8^^^HOSP^MR", "MRG|7^^^HOSP^MR", at="202606010400"))
    assert read(store, lambda tx: tx.patient_feed.merged_into(["7", "8"])) == {"7": "8"}
    assert (patient(store, "8").active, patient(store).active) == (True, False)


@on_every_engine
async def test_merges_out_of_order_end_as_the_newest_says_and_lose_no_address(store: SQLStore) -> None:
    feed = feed_of(store)
    await _two_with_addresses(store, feed)
    await code(feed, adt("A40", "1||8^^^HOSP^MR", "MRG|7^^^HOSP^MR", at="202606010400"))
    assert await code(feed, adt("A40", "1||7^^^HOSP^MR", "MRG|8^^^HOSP^MR", at="202606010200")) == "AA"
    assert read(store, lambda tx: tx.patient_feed.merged_into(["7", "8"])) == {"7": "8"}
    assert entries(store, unapplied=True)[0].outcome is FeedOutcome.OLDER
    assert set(patient(store, "8").direct_addresses) == {"keep@d.example", "lose@d.example"}
    # A third record into one that was itself merged meanwhile: its address goes to whoever is left.
    third = "1||9^^^HOSP^MR||Quimby^Ann||||||||^NET^DIRECT^third@d.example"
    await code(feed, adt("A04", third, at="202606010100"))
    await code(feed, adt("A40", "1||7^^^HOSP^MR", "MRG|9^^^HOSP^MR", at="202606010300"))
    assert read(store, lambda tx: tx.patient_feed.merged_into(["7", "8", "9"])) == {"7": "8", "9": "7"}
    assert "third@d.example" in patient(store, "8").direct_addresses
    assert decided(store, "third@d.example")[2] == Ground.UNCONFIRMED


async def test_a_merge_of_records_that_nobody_knows_holds_for_the_loser_when_he_comes_late(store: SQLStore) -> None:
    feed = feed_of(store)
    merge = adt("A40", "1||7^^^HOSP^MR||Quimby^Ann", "MRG|8^^^HOSP^MR", at="202606010200")
    assert await code(feed, merge) == "AA"
    await code(feed, adt("A04", "1||8^^^HOSP^MR||Quimby^Ann", at="202606010100"))
    assert not patient(store, "8").active
    assert patient(store).active


@on_every_engine
async def test_several_merges_of_one_message_are_all_or_none(store: SQLStore) -> None:
    feed = feed_of(store)
    parts = ("MRG|8^^^HOSP^MR", "PID|2||5^^^HOSP^MR||Roe^Ri", "MRG|6^^^HOSP^MR")
    assert await code(feed, adt("A40", "1||7^^^HOSP^MR||Quimby^Ann", *parts)) == "AA"
    assert read(store, lambda tx: tx.patient_feed.merged_into(["8", "6"])) == {"8": "7", "6": "5"}
    bad = ("MRG|18^^^HOSP^MR", "PID|2||15^^^HOSP^MR||Roe^Ri||WRONG", "MRG|16^^^HOSP^MR")
    assert await code(feed, adt("A40", "1||17^^^HOSP^MR||Quimby^Ann", *bad)) == "AR"
    assert read(store, lambda tx: tx.patient_feed.merged_into(["18", "16"])) == {}
    with pytest.raises(NotFoundError):
        patient(store, "17")


@on_every_engine
async def test_the_audit_log_answers_for_every_row(store: SQLStore) -> None:
    feed = feed_of(store)
    await _two_with_addresses(store, feed)
    await code(feed, adt("A40", "1||7^^^HOSP^MR", "MRG|8^^^HOSP^MR", at="202606010200"))
    await code(feed, adt("A08", "1||7^^^X^MR"))
    found = read(store, lambda tx: tx.audit.find(AuditQuery()))
    actions = [event.action for event in found if event.actor == "adt"]
    assert sorted(actions) == ["patient.fed", "patient.fed", "patient.fed", "patient.refused"]
    assert not [event for event in found if event.action == "rows.written"]


async def test_an_answer_has_the_delimiters_and_the_place_of_who_asked(store: SQLStore) -> None:
    octets = b"MSH#*!?@#APP#FAC#US#OURS#20260601##ADT*A03#9#P#2.3.1\r"
    message: Message = read_message(await feed_of(store).take(octets))
    msh = message.msh
    assert [msh.text(n) for n in (3, 4, 5, 6)] == ["US", "OURS", "APP", "FAC"]
    assert (msh.text(9, 1), msh.text(9, 2), msh.text(12)) == ("ACK", "A03", "2.3.1")
    assert message.delimiters.field == "#"
    assert message.first("MSA").text(1) == Code.ACCEPT.value  # type: ignore[union-attr]
