"""Mail from senders whom nobody has documented: held against the patient index, and linked where the policy allows.

A clinician who opens the queue finds the patient already chosen, or suggested; and never the wrong one on a chart.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from gateway.core.claims import Evidence, Identifier, NameKind, PersonName
from gateway.core.lifecycle import State
from gateway.core.link_policy import DEMOGRAPHICS, NUMBER, LinkPolicy
from gateway.core.message import Envelope, Inbound, MemoryBody, Source
from gateway.ports import Patient, PatientDetail, UnitOfWork
from gateway.settings import StoreSettings
from gateway.store.sql_store import SQLStore
from tests.support.body_keys import sealer_in
from tests.support.store_samples import SteadyClock, accepted
from tests.unit.evidence.evidence_messages import cda, message, part
from tests.unit.pipeline.link_harness import START
from tests.unit.pipeline.test_onward import Linking, Works

STRANGER = "records@hospital.test"
DOCTOR = "dr@practice.test"
BY_DEMOGRAPHICS = Linking(LinkPolicy(by=DEMOGRAPHICS))
BY_NUMBER = Linking(LinkPolicy(by=NUMBER), assigners=("urn:oid:1.2.3.4",))
QUIMBY = Patient(
    "p1", "MRN-7", "Quimby", "Ada", date(1961, 3, 14), "female", "617-234-5678", "12 Main Street", "Boston", "02108"
)
ROLE = (
    '{number}<telecom value="tel:617-234-5678"/><addr><streetAddressLine>12 Main St</streetAddressLine>'
    "<city>Boston</city><postalCode>02108</postalCode></addr><patient><name><given>{given}</given>"
    '<family>{family}</family></name><administrativeGenderCode code="F"/><birthTime value="{born}"/></patient>'
)


def document(*, given: str = "Ada", family: str = "Quimby", born: str = "19610314", number: str = "") -> bytes:
    """A message with the C-CDA of a patient."""
    of = f'<id root="1.2.3.4" extension="{number}"/>' if number else ""
    role = ROLE.format(given=given, family=family, born=born, number=of)
    return message(part(cda(role).encode(), "text/xml"))


class Practice:
    """A pipeline that takes mail of a stranger."""

    def __init__(self, works: Works) -> None:
        self.works = works
        self.count = 0

    def add(self, *patients: Patient) -> None:
        self.write(lambda tx: tx.patients.upsert(patients, "csv-file", START))

    def write(self, work: Callable[[UnitOfWork], Any]) -> None:
        self.works.store.write_blocking(work)

    async def take(self, content: bytes, sender: str = STRANGER) -> tuple[State, dict[str, Any]]:
        """The state of a message with that content, and the detail of the decision."""
        self.count += 1
        content = content.replace(b"MIME-Version", f"Message-ID: <{self.count}@hospital.test>\r\nMIME-Version".encode())
        self.works.agent.answer = lambda *_: replace(accepted(DOCTOR, content=content), sender=sender)
        inbound = Inbound(MemoryBody(b"raw %d" % self.count), Envelope(sender, (DOCTOR,)), Source.SMTP)
        message_id = await self.works.run(inbound)
        with closing(sqlite3.connect(self.works.store.path)) as other:
            query = (
                "SELECT detail FROM audit_event WHERE subject = ? AND action IN ('message.linked', 'message.unlinked')"
            )
            [(detail,)] = other.execute(query, [message_id]).fetchall()
        for word in ("Quimby", "1961", "617", "Main", "MRN"):
            assert word not in detail
        return self.works.state(message_id), json.loads(detail)


@contextmanager
def practice(folder: Path, linking: Linking, *, at_once: bool = True) -> Iterator[Practice]:
    clock = SteadyClock(START)
    settings = StoreSettings(url=f"sqlite:///{folder}/gateway.db", free_space_floor_mib=1)
    with SQLStore.open(settings, sealer_in(folder), clock=clock) as store:
        works = Works(store, clock, at_once=at_once, linking=linking)
        works.mailbox("INBOX", DOCTOR)
        yield Practice(works)


at_once_or_not = pytest.mark.parametrize("at_once", [True, False], ids=["at once", "step by step"])


@at_once_or_not
async def test_exact_demographics_link_where_the_policy_says_so(tmp_path: Path, at_once: bool) -> None:
    with practice(tmp_path, BY_DEMOGRAPHICS, at_once=at_once) as own:
        own.add(QUIMBY, Patient("p2", family="Okafor", given="Ben", birth_date=date(1961, 3, 14)))
        state, detail = await own.take(document())
    assert state is State.LINKED
    assert (detail["decision"], detail["rule"]) == ("automatic", "evidence-1:exact_demographics")
    assert detail["patient"] == "p1"
    assert detail["candidates"][0] == {
        "patient": "p1", "points": 13.0, "family": "equal", "given": "equal", "birth_date": "equal", "sex": "equal",
        "contact": True,
    }  # fmt: skip


@at_once_or_not
async def test_by_default_the_same_is_only_suggested_and_recorded_so(tmp_path: Path, at_once: bool) -> None:
    with practice(tmp_path, Linking(), at_once=at_once) as own:
        own.add(QUIMBY)
        state, detail = await own.take(document())
    assert state is State.FILED
    assert (detail["decision"], detail["rule"]) == ("suggested", "evidence-1:policy_off")
    assert (detail["points"], detail["compared"]) == (13.0, 1)
    assert [one["patient"] for one in detail["candidates"]] == ["p1"]


async def test_a_record_number_of_ours_links_and_that_of_others_does_not(tmp_path: Path) -> None:
    with practice(tmp_path, BY_NUMBER) as own:
        own.add(replace(QUIMBY, phone="", address_line="", city="", postal_code=""))
        state, detail = await own.take(document(number="MRN-7"))
        assert (state, detail["rule"]) == (State.LINKED, "evidence-1:exact_record_number")
        state, detail = await own.take(document(number="MRN-8"))
        assert (state, detail["decision"]) == (State.FILED, "suggested")
        assert detail["candidates"][0]["other_identifier"]


async def test_a_record_number_whose_assigner_nobody_named_never_links(tmp_path: Path) -> None:
    with practice(tmp_path, replace(BY_NUMBER, assigners=())) as own:
        own.add(QUIMBY)
        assert (await own.take(document(number="MRN-7")))[0] is State.FILED


@pytest.mark.parametrize(
    ("other", "ground"),
    [
        (replace(QUIMBY, id="p2", mrn=""), "several_patients"),
        # Mother and daughter of one name at one address.
        (replace(QUIMBY, id="p2", mrn="", birth_date=date(1991, 3, 14)), "runner_up"),
        # The twin alone is registered.
        (None, "not_exact"),
    ],
    ids=["two charts", "the mother", "the twin alone"],
)
async def test_whoever_is_easily_taken_for_another_is_never_linked(
    tmp_path: Path, other: Patient | None, ground: str
) -> None:
    with practice(tmp_path, BY_DEMOGRAPHICS) as own:
        own.add(*((QUIMBY, other) if other else (replace(QUIMBY, given="Eve"),)))
        state, detail = await own.take(document())
    assert (state, detail["rule"]) == (State.FILED, f"evidence-1:{ground}")


async def test_a_previous_name_and_a_merge_count(tmp_path: Path) -> None:
    born = PatientDetail(names=(PersonName("Quimby", ("Ada",), kind=NameKind.BIRTH),))
    with practice(tmp_path, BY_DEMOGRAPHICS) as own:
        own.add(replace(QUIMBY, family="Okafor"))
        assert (await own.take(document()))[0] is State.FILED
        own.write(lambda tx: tx.patient_feed.set_detail("p1", born, START, "adt"))
        state, detail = await own.take(document())
        assert (state, detail["patient"]) == (State.LINKED, "p1")
        assert detail["candidates"][0]["family"] == "previous"
        own.add(Patient("p9"))
        own.write(lambda tx: tx.patient_feed.merge("p1", "p9", START, START, "adt"))
        state, detail = await own.take(document())
        assert (state, detail["rule"]) == (State.FILED, "evidence-1:merged")


async def test_a_record_that_became_part_of_another_is_no_second_patient(tmp_path: Path) -> None:
    with practice(tmp_path, BY_DEMOGRAPHICS) as own:
        own.add(QUIMBY, replace(QUIMBY, id="p0", mrn="MRN-1", active=False))
        assert (await own.take(document()))[1]["rule"] == "evidence-1:several_patients"
        own.write(lambda tx: tx.patient_feed.merge("p0", "p1", START, START, "adt"))
        state, detail = await own.take(document())
    assert (state, detail["patient"]) == (State.LINKED, "p1")


async def test_a_further_number_of_a_feed_counts(tmp_path: Path) -> None:
    numbers = PatientDetail(identifiers=(Identifier("X-9", "1.2.3.4", "MR"), Identifier("V-1", "1.2.3.4", "VN")))
    with practice(tmp_path, Linking(LinkPolicy(by=NUMBER))) as own:
        own.add(replace(QUIMBY, phone="", address_line=""))
        own.write(lambda tx: tx.patient_feed.set_detail("p1", numbers, START, "adt"))
        assert (await own.take(document(number="X-9")))[0] is State.LINKED
        assert (await own.take(document(number="V-1")))[0] is State.FILED


async def test_patients_who_come_and_change_later_are_known(tmp_path: Path) -> None:
    with practice(tmp_path, BY_DEMOGRAPHICS) as own:
        own.add(replace(QUIMBY, phone="", address_line=""))
        assert (await own.take(document()))[1]["rule"] == "evidence-1:not_exact"
        own.add(QUIMBY)
        assert (await own.take(document()))[0] is State.LINKED
        own.add(replace(QUIMBY, id="p2", mrn=""))
        assert (await own.take(document()))[1]["rule"] == "evidence-1:several_patients"
        own.add(replace(QUIMBY, id="p2", mrn="", given="Zoe", birth_date=date(2001, 1, 1), phone="", address_line=""))
        assert (await own.take(document()))[0] is State.LINKED


@at_once_or_not
async def test_who_is_written_between_reading_and_deciding_is_known_too(tmp_path: Path, at_once: bool) -> None:
    with practice(tmp_path, BY_DEMOGRAPHICS, at_once=at_once) as own:
        own.add(QUIMBY)
        weighing = own.works.link._evidence
        read = weighing.read

        def late(content: bytes, sender: str) -> Evidence:
            found = read(content, sender)
            own.add(replace(QUIMBY, id="p2", mrn=""))
            return found

        weighing.read = late  # type: ignore[method-assign]
        state, detail = await own.take(document())
    assert (state, detail["rule"]) == (State.FILED, "evidence-1:several_patients")


async def test_a_document_that_is_exactly_another_patients_stops_the_link_of_the_sender(tmp_path: Path) -> None:
    ben = Patient("p2", family="Quimby", given="Ada", birth_date=date(1961, 3, 14), direct_addresses=(STRANGER,))
    with practice(tmp_path, Linking()) as own:
        own.add(QUIMBY, ben)
        state, detail = await own.take(document())
    assert (state, detail["rule"], detail["decision"]) == (State.FILED, "evidence-1:other_patient", "conflict")


async def test_only_mail_to_some_of_our_addresses_may_be_linked(tmp_path: Path) -> None:
    policy = LinkPolicy(by=DEMOGRAPHICS, recipients=frozenset({"front@practice.test"}))
    with practice(tmp_path, Linking(policy)) as own:
        own.add(QUIMBY)
        state, detail = await own.take(document())
        assert (state, detail["rule"], detail["automatic"]) == (State.FILED, "evidence-1:policy_off", False)
        own.works.link._policy = replace(policy, recipients=frozenset({DOCTOR}))
        assert (await own.take(document()))[0] is State.LINKED
    assert policy.allows(["front@practice.test"])
    assert not policy.allows(["front@practice.test", DOCTOR])


async def test_a_crowd_that_shares_a_trait_links_nobody_but_the_documented_one(tmp_path: Path) -> None:
    crowd = [replace(QUIMBY, id=f"c{at}", mrn="", given=f"Name{at:04d}", birth_date=None) for at in range(400)]
    with practice(tmp_path, BY_DEMOGRAPHICS) as own:
        own.add(
            replace(QUIMBY, phone="", address_line="", city="", postal_code="", direct_addresses=(STRANGER,)), *crowd
        )
        state, detail = await own.take(document(), sender="other@hospital.test")
        assert (state, detail["rule"]) == (State.FILED, "evidence-1:too_many")
        state, detail = await own.take(document())
        assert (state, detail["rule"]) == (State.LINKED, "evidence-1:sole_patient")
