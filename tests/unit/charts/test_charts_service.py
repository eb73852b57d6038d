"""Patients, the address book and links over the real store (S42, S46-S49, CX-13)."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.charts.batches import batches
from gateway.charts.linking import LinkOutcome
from gateway.charts.patient_files import RowProblem
from gateway.charts.service import Charts
from gateway.core.errors import ConflictError, GatewayError, InputError, NotFoundError, RefusedError, StoreError
from gateway.core.lifecycle import JobKind, State
from gateway.core.message import Envelope, Inbound, MemoryBody, Source
from gateway.core.verdict import Judgement, Reason
from gateway.ports import AddressBookEntry, Link, Patient, UnitOfWork
from gateway.settings import StoreSettings
from gateway.store.sql_store import SQLStore
from tests.support.body_keys import sealer_in

START = datetime(2026, 6, 1, 9, 0, tzinfo=UTC)
ANN = "ann@patients.direct.example"


class Ticking:
    """A clock that goes on one second at each look."""

    def __init__(self) -> None:
        self._seconds = itertools.count()

    def now(self) -> datetime:
        return START + timedelta(seconds=next(self._seconds))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLStore]:
    with SQLStore.open(
        StoreSettings(url=f"sqlite:///{tmp_path}/gateway.db", free_space_floor_mib=1), sealer_in(tmp_path)
    ) as opened:
        yield opened


@pytest.fixture
def charts(store: SQLStore) -> Charts:
    numbers = itertools.count(1)
    return Charts(store, Ticking(), lambda: f"LINK{next(numbers):04d}")


def receive(
    store: SQLStore, message_id: str, *states: State, sender: str = ANN, content: bytes = b"A: b\r\n\r\nc"
) -> str:
    """A message that has gone through the states."""

    def work(tx: UnitOfWork) -> None:
        tx.messages.add_raw(
            message_id,
            START,
            Inbound(MemoryBody(message_id.encode()), Envelope("s@x.example", ("dr@p.example",)), Source.SMTP),
        )
        tx.messages.set_state(message_id, State.RECEIVED, START)
        judgement = Judgement(Reason.OK, "", delivered_to=("dr@p.example",), sender=sender, content=content)
        for state in states:
            if state is State.UNWRAPPED:
                tx.messages.add_content(message_id, judgement)
            tx.messages.set_state(message_id, state, START)

    store.write_blocking(work)
    return message_id


def filed(store: SQLStore, message_id: str = "M1", **options: Any) -> str:
    return receive(store, message_id, State.UNWRAPPED, State.FILED, **options)


def add_patients(store: SQLStore, *patients: Patient) -> None:
    store.write_blocking(lambda tx: tx.patients.upsert(patients, "csv-file", START))


def jobs(store: SQLStore) -> list[tuple[JobKind, str]]:
    found = store.write_blocking(lambda tx: tx.jobs.claim(60, 100))
    return [(job.kind, job.subject) for job in found]


def audit(store: SQLStore) -> list[tuple[str, str, str, str]]:
    def work(tx: Any) -> list[tuple[str, str, str, str]]:
        # What the fixtures write without an event of their own gets one from the store.
        mine = (e for e in tx.audit.events() if e.action != "rows.written")
        return [(e.actor, e.action, e.subject, e.detail) for e in mine]

    return store.read_blocking(work)


def book(store: SQLStore, address: str) -> list[AddressBookEntry]:
    return store.read_blocking(lambda tx: tx.patients.address_book(address))


def csv(tmp_path: Path, *rows: str, header: str = "id,family,given,direct") -> Path:
    path = tmp_path / "patients.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


# --- import of patients ---


async def test_import_reports_what_it_did(charts: Charts, store: SQLStore, tmp_path: Path) -> None:
    path = csv(
        tmp_path, f"p1,Lee,Ann,{ANN}", "p2,Lee,Amy,twins@d.example", "p3,Lee,Abe,twins@d.example", ",x,y,", "p1,Lee,An,"
    )
    written: list[int] = []
    report = await charts.import_patients(path, actor="olga", progress=written.append)
    assert (report.read, report.changed, report.unchanged) == (3, 3, 0)
    assert report.rejected == (RowProblem(5, "the patient id is missing"),)
    assert report.notices == (RowProblem(6, "replaces the patient of line 2: the id is the same"),)
    assert (report.addresses, report.shared_addresses) == (1, 1)
    assert written == [3]
    assert [f.patient.given for f in await charts.find_patients("p1")] == ["An"]
    assert [(a, b, c) for a, b, c, _ in audit(store)] == [("olga", "patients.imported", "csv-file")]


async def test_importing_again_changes_nothing(charts: Charts, tmp_path: Path) -> None:
    path = csv(tmp_path, f"p1,Lee,Ann,{ANN}", "p2,Lee,Amy,", "p2,Lee,Amy2,")
    await charts.import_patients(path)
    report = await charts.import_patients(path)
    assert (report.read, report.changed, report.unchanged) == (2, 0, 2)
    assert (report.addresses, report.shared_addresses) == (1, 0)


async def test_imported_entries_are_confirmed_and_name_their_source(
    charts: Charts, store: SQLStore, tmp_path: Path
) -> None:
    await charts.import_patients(csv(tmp_path, f"p1,Lee,Ann,{ANN.upper()}"))
    assert book(store, ANN) == [AddressBookEntry(ANN, "p1", confirmed=True, shared=False, source="csv-file")]


async def test_an_address_is_shared_across_imports_until_one_gives_it_up(
    charts: Charts, store: SQLStore, tmp_path: Path
) -> None:
    await charts.import_patients(csv(tmp_path, f"p1,Lee,Ann,{ANN}"))
    report = await charts.import_patients(csv(tmp_path, f"p2,Lee,Amy,{ANN}"))
    assert report.shared_addresses == 1
    assert [(e.patient_id, e.shared) for e in book(store, ANN)] == [("p1", True), ("p2", True)]
    report = await charts.import_patients(csv(tmp_path, "p1,Lee,Ann,other@d.example"))
    assert report.shared_addresses == 0
    assert [(e.patient_id, e.shared) for e in book(store, ANN)] == [("p2", False)]


async def test_an_address_that_is_gone_from_the_file_is_documented_no_more(
    charts: Charts, store: SQLStore, tmp_path: Path
) -> None:
    await charts.import_patients(csv(tmp_path, f"p1,Lee,Ann,{ANN}"))
    await charts.import_patients(csv(tmp_path, "p2,Lee,Amy,amy@d.example"))
    report = await charts.import_patients(csv(tmp_path, "p1,Lee,Ann,", "p2,Lee,Amy,new@d.example", "p3,Lee,Abe,"))
    assert report.addresses_removed == 2
    assert (report.changed, report.notices) == (3, ())
    assert book(store, ANN) == []
    assert book(store, "amy@d.example") == []
    assert [e.patient_id for e in book(store, "new@d.example")] == ["p2"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("no-column.csv", "id,family,given\np1,Leigh,Ann\np2,Lee,Amy\n"),
        ("empty-column.csv", "id,family,given,direct\np1,Leigh,Ann,\np2,Lee,Amy,\n"),
        (
            "ehr.ndjson",
            (
                '{"resourceType":"Patient","id":"p1","name":[{"family":"Leigh","given":["Ann"]}],'
                '"telecom":[{"system":"email","value":"ann@mail.example"}]}\n{"resourceType":"Patient","id":"p2"}\n'
            ),
        ),
    ],
)
async def test_a_file_that_names_no_address_takes_none_away(
    charts: Charts, store: SQLStore, tmp_path: Path, name: str, text: str
) -> None:
    """An export of the demographics alone used to end every automatic link without a word."""
    await charts.import_patients(csv(tmp_path, f"p1,Lee,Ann,{ANN} second@d.example", "p9,Lee,Joy,joy@d.example"))
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    report = await charts.import_patients(path)
    assert (report.read, report.changed, report.addresses, report.addresses_removed) == (2, 2, 0, 0)
    assert [(notice.line, "are kept (2)" in notice.reason) for notice in report.notices] == [(0, True)]
    assert [(f.patient.family, f.patient.direct_addresses) for f in await charts.find_patients("p1")] == [
        ("Leigh", (ANN, "second@d.example"))
    ]
    assert [(e.patient_id, e.confirmed) for e in book(store, ANN)] == [("p1", True)]
    again = await charts.import_patients(path)
    assert (again.changed, again.unchanged, len(again.notices)) == (0, 2, 1)


async def test_nothing_is_said_to_be_kept_where_nothing_was(charts: Charts, tmp_path: Path) -> None:
    report = await charts.import_patients(csv(tmp_path, "p1,Lee,Ann", header="id,family,given"))
    assert (report.notices, report.addresses_removed) == ((), 0)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("unreadable.csv", "id,direct\np1,not-an-address\n"),
        (
            "old.json",
            '{"resourceType":"Patient","id":"p1","telecom":[{"use":"old","value":"urn:direct:' + ANN + '"}]}',
        ),
    ],
)
async def test_a_file_that_names_only_dead_addresses_does_take_them_away(
    charts: Charts, store: SQLStore, tmp_path: Path, name: str, text: str
) -> None:
    """The EHR says that the address is not the patient's any more: mail from it must not link by itself (S42)."""
    await charts.import_patients(csv(tmp_path, f"p1,Lee,Ann,{ANN}"))
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    assert (await charts.import_patients(path)).addresses_removed == 1
    assert book(store, ANN) == []


async def test_what_is_kept_is_read_when_it_is_written(
    charts: Charts, store: SQLStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another import that ends between two commits of this one must not be undone by what this one read before."""
    monkeypatch.setattr("gateway.charts.service.BATCH_PATIENTS", 1)
    await charts.import_patients(csv(tmp_path, "p1,Lee,Ann,", f"p2,Lee,Amy,{ANN}"))

    def meanwhile(written: int) -> None:
        if written == 1:
            add_patients(store, Patient("p2", direct_addresses=("newer@d.example",)))

    await charts.import_patients(csv(tmp_path, "p1,Lee,A", "p2,Lee,B", header="id,family,given"), progress=meanwhile)
    assert book(store, ANN) == []
    assert [e.patient_id for e in book(store, "newer@d.example")] == ["p2"]


async def test_a_search_says_which_addresses_are_shared(charts: Charts, tmp_path: Path) -> None:
    await charts.import_patients(
        csv(tmp_path, f"p1,Lee,Ann,{ANN}", "p2,Lee,Amy,own@d.example fam@d.example", "p3,Lee,Abe,fam@d.example")
    )
    assert {f.patient.id: f.shared_addresses for f in await charts.find_patients()} == {
        "p1": (),
        "p2": ("fam@d.example",),
        "p3": ("fam@d.example",),
    }
    assert [f.shared_addresses for f in await charts.find_patients("abe")] == [("fam@d.example",)], "not on the page"
    await charts.import_patients(csv(tmp_path, "p3,Lee,Abe,abe@d.example"))
    assert [f.shared_addresses for f in await charts.find_patients("amy")] == [()]


async def test_a_file_without_patients_is_an_error(charts: Charts, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no patient"):
        await charts.import_patients(csv(tmp_path))
    with pytest.raises(InputError, match="not a file"):
        await charts.import_patients(tmp_path / "absent.csv")


async def test_no_commit_ever_shows_a_shared_address_as_unshared(
    charts: Charts, store: SQLStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mail may be linked between two commits of an import: what the file shares must be shared from the start."""
    monkeypatch.setattr("gateway.charts.service.BATCH_PATIENTS", 3)
    seen: list[bool] = []

    def look(_: int) -> None:
        seen.extend(not entry.shared for entry in book(store, ANN))

    first = [f"p{n},Lee,A,{ANN if n in {0, 11} else ''}" for n in range(12)]
    await charts.import_patients(csv(tmp_path, *first), progress=look)
    assert [e.patient_id for e in book(store, ANN)] == ["p0", "p11"]
    second = [f"p{n},Lee,B,{'p5@d.example' if n == 5 else ''}" for n in range(12)]
    assert (await charts.import_patients(csv(tmp_path, *second), progress=look)).addresses_removed == 2
    assert book(store, ANN) == []
    assert seen
    assert not any(seen)


def test_batches_hold_everybody_once_and_split_no_address() -> None:
    def patient(number: int, *addresses: str) -> Patient:
        return Patient(str(number), direct_addresses=addresses)

    people = [
        patient(0, "a"),
        patient(1),
        patient(2, "a", "b"),
        patient(3),
        patient(4, "b"),
        patient(5, "c"),
        patient(6),
    ]
    cut = list(batches(people, 2, {"6": ("c",)}))
    assert [[p.id for p in batch] for batch in cut] == [["0", "2", "4"], ["1", "3"], ["5", "6"]]
    assert list(batches([], 2, {})) == []


async def test_the_synthea_registry(charts: Charts, store: SQLStore, shared_data: Path) -> None:
    report = await charts.import_patients(shared_data / "clinical/synthea/match_registry.csv")
    assert (report.read, report.changed, report.rejected) == (665, 665, ())
    assert (report.addresses, report.shared_addresses) == (375, 0)
    assert len(await charts.find_patients("hartmann001@patients.direct.example")) == 1


async def test_the_synthea_bulk_export(charts: Charts, shared_data: Path) -> None:
    report = await charts.import_patients(shared_data / "clinical/synthea/patients_r4.ndjson")
    assert (report.read, report.rejected, report.addresses) == (615, (), 0)


# --- links ---


async def test_a_link_writes_everything_at_once(charts: Charts, store: SQLStore) -> None:
    add_patients(store, Patient("p1"))
    outcome = await charts.link(filed(store), "p1", actor="olga")
    assert outcome.created
    assert outcome.notice == ""
    assert (outcome.link.mode, outcome.link.actor, outcome.link.rule) == ("manual", "olga", "manual")
    assert await charts.links_of_message("M1") == [outcome.link]
    assert await charts.links_of_patient("p1") == [outcome.link]
    assert store.read_blocking(lambda tx: tx.messages.state("M1")) is State.LINKED
    assert jobs(store) == [(JobKind.IMPORT, outcome.link.id)]
    assert [(a, b, c) for a, b, c, _ in audit(store)] == [("olga", "message.linked", "M1")]


async def test_the_same_patient_again_is_a_no_op_with_notice(charts: Charts, store: SQLStore) -> None:
    add_patients(store, Patient("p1"))
    first = await charts.link(filed(store), "p1", actor="olga")
    again = await charts.link("M1", "p1", actor="paul", override=True, reason="why not")
    assert again.link == first.link
    assert not again.created
    assert "already" in again.notice
    assert "olga" in again.notice
    assert len(audit(store)) == 1


async def test_another_patient_is_a_conflict_that_says_whose_when_and_by_whom(charts: Charts, store: SQLStore) -> None:
    add_patients(store, Patient("p1", family="Secretname"), Patient("p2"))
    await charts.link(filed(store), "p1", actor="olga")
    with pytest.raises(ConflictError) as caught:
        await charts.link("M1", "p2", actor="paul")
    text = str(caught.value)
    assert "p1" in text
    assert "olga" in text
    assert "2026-06-01T09:00:00" in text
    assert "Secretname" not in text
    assert len(await charts.links_of_message("M1")) == 1
    assert len(jobs(store)) == 1


async def test_an_override_needs_a_reason_and_is_audited(charts: Charts, store: SQLStore) -> None:
    add_patients(store, Patient("p1"), Patient("p2"))
    await charts.link(filed(store), "p1", actor="olga")
    with pytest.raises(RefusedError, match="reason"):
        await charts.link("M1", "p2", actor="paul", override=True, reason=" \n")
    outcome = await charts.link("M1", "p2", actor="paul", override=True, reason="concerns\nboth")
    assert outcome.created
    assert outcome.link.rule == "manual-override"
    assert "2 patients" in outcome.notice
    assert [link.patient_id for link in await charts.links_of_message("M1")] == ["p1", "p2"]
    actor, _, _, detail = audit(store)[-1]
    assert actor == "paul"
    assert "concerns both" in detail
    assert "p1" in detail
    assert len(jobs(store)) == 2


async def test_an_override_of_nothing_is_an_ordinary_link(charts: Charts, store: SQLStore) -> None:
    add_patients(store, Patient("p1"))
    outcome = await charts.link(filed(store), "p1", actor="olga", override=True, reason="sure")
    assert outcome.link.rule == "manual"


@pytest.mark.parametrize(
    ("states", "why"), [((), "not been verified"), ((State.REFUSED,), "quarantine"), ((State.UNWRAPPED,), "filed yet")]
)
async def test_a_message_that_is_not_filed_is_never_linked(
    charts: Charts, store: SQLStore, states: tuple[State, ...], why: str
) -> None:
    add_patients(store, Patient("p1"))
    receive(store, "M1", *states)
    for options in ({}, {"override": True, "reason": "please"}):
        with pytest.raises(RefusedError, match=why):
            await charts.link("M1", "p1", actor="olga", **options)  # type: ignore[arg-type]
    assert await charts.links_of_message("M1") == []
    assert jobs(store) == []
    assert audit(store) == []


async def test_unknown_messages_and_patients(charts: Charts, store: SQLStore) -> None:
    add_patients(store, Patient("p1"))
    filed(store)
    calls: list[Callable[[], Any]] = [
        lambda: charts.link("absent", "p1", actor="olga"),
        lambda: charts.link("M1", "absent", actor="olga"),
        lambda: charts.links_of_message("absent"),
        lambda: charts.links_of_patient("absent"),
    ]
    for call in calls:
        with pytest.raises(NotFoundError):
            await call()
    assert store.read_blocking(lambda tx: tx.messages.state("M1")) is State.FILED


async def test_a_person_may_link_to_the_dead_and_the_inactive_but_is_told(charts: Charts, store: SQLStore) -> None:
    add_patients(store, Patient("p1", deceased=True, active=False))
    outcome = await charts.link(filed(store), "p1", actor="olga")
    assert "deceased" in outcome.notice
    assert "not active" in outcome.notice


async def test_twenty_parallel_requests_make_one_link(charts: Charts, store: SQLStore) -> None:
    add_patients(store, Patient("p1"))
    filed(store)
    outcomes = await asyncio.gather(*(charts.link("M1", "p1", actor=f"user{n}") for n in range(20)))
    assert [o.created for o in outcomes].count(True) == 1
    assert len({o.link for o in outcomes}) == 1
    assert len(await charts.links_of_message("M1")) == 1
    assert len(jobs(store)) == 1
    assert len(audit(store)) == 1


@pytest.mark.parametrize("turn", range(5))
async def test_a_race_to_another_patient_has_one_winner(charts: Charts, store: SQLStore, turn: int) -> None:
    add_patients(store, Patient("p1"), Patient("p2"))
    filed(store)
    wishes = ["p1", "p2"] if turn % 2 else ["p2", "p1"]
    results = await asyncio.gather(
        *(charts.link("M1", patient, actor=patient) for patient in wishes), return_exceptions=True
    )
    assert sum(isinstance(r, LinkOutcome) for r in results) == 1
    assert sum(isinstance(r, ConflictError) for r in results) == 1
    assert len(await charts.links_of_message("M1")) == 1


async def test_processes_that_race_have_one_winner_too(store: SQLStore, tmp_path: Path) -> None:
    """The command line opens the same file beside the daemon."""
    add_patients(store, Patient("p1"), Patient("p2"))
    filed(store)
    beside = SQLStore.open(StoreSettings(url=f"sqlite:///{store.path}", free_space_floor_mib=1), sealer_in(tmp_path))
    try:
        here = Charts(store, Ticking(), iter([f"H{n}" for n in range(10)]).__next__)
        there = Charts(beside, Ticking(), iter([f"T{n}" for n in range(10)]).__next__)
        results = await asyncio.gather(
            *(here.link("M1", "p1", actor="here") for _ in range(10)),
            *(there.link("M1", "p2", actor="there") for _ in range(10)),
            return_exceptions=True,
        )
    finally:
        beside.close()
    assert sum(isinstance(r, LinkOutcome) and r.created for r in results) == 1
    assert sum(isinstance(r, ConflictError) for r in results) == 10
    links = store.read_blocking(lambda tx: tx.links.for_message("M1"))
    assert len(links) == 1


async def test_a_failure_inside_the_commit_leaves_nothing(
    store: SQLStore, charts: Charts, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_patients(store, Patient("p1"))
    filed(store)

    def fail(*_: Any) -> None:
        raise StoreError("no")

    with monkeypatch.context() as patch:
        patch.setattr("gateway.store.audit_log.AuditLog.add", fail)
        with pytest.raises(GatewayError):
            await charts.link("M1", "p1", actor="olga")
    found: list[Link] = await charts.links_of_message("M1")
    assert found == []
    assert jobs(store) == []
    assert store.read_blocking(lambda tx: tx.messages.state("M1")) is State.FILED
