"""What a message says is held against the patient whom its sender is documented for (matching policy 2, 3 and 7).

A clinician who opens a chart finds there what belongs to that patient. So a document of somebody else, sent from the
address of a patient, waits for a person, whichever way the message takes through the pipeline.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from gateway.core.lifecycle import State
from gateway.core.message import Envelope, Inbound, MemoryBody, Source
from gateway.ports import Patient
from gateway.settings import StoreSettings
from gateway.store.sql_store import SQLStore
from tests.support.body_keys import sealer_in
from tests.support.store_samples import SteadyClock, accepted
from tests.unit.evidence.evidence_messages import cda, message, part
from tests.unit.pipeline.link_harness import START
from tests.unit.pipeline.test_onward import Works

ADA = "ada@direct.phr.test"
DOCTOR = "dr@practice.test"
QUIMBY = Patient(
    "p1", family="Quimby", given="Ada", birth_date=date(1961, 3, 14), sex="female", direct_addresses=(ADA,)
)
PERSON = "<patient><name><given>{}</given><family>Quimby</family></name></patient>"
EXACT = "evidence-1:sole_patient"


async def outcome(folder: Path, content: bytes, *patients: Patient, at_once: bool) -> tuple[State, dict[str, Any]]:
    """The state of an accepted message with that content, and the detail of the decision."""
    clock = SteadyClock(START)
    settings = StoreSettings(url=f"sqlite:///{folder}/gateway.db", free_space_floor_mib=1)
    with SQLStore.open(settings, sealer_in(folder), clock=clock) as store:
        pipeline = Works(store, clock, at_once=at_once)
        pipeline.mailbox("INBOX", DOCTOR)
        store.write_blocking(lambda tx: tx.patients.upsert(patients, "csv-file", START))
        pipeline.agent.answer = lambda *_: replace(accepted(DOCTOR, content=content), sender=ADA)
        message_id = await pipeline.run(Inbound(MemoryBody(b"raw"), Envelope(ADA, (DOCTOR,)), Source.SMTP))
        state = pipeline.state(message_id)
        with closing(sqlite3.connect(store.path)) as other:
            query = "SELECT detail FROM audit_event WHERE action IN ('message.linked', 'message.unlinked')"
            [(detail,)] = other.execute(query).fetchall()
    assert ADA not in detail
    assert "Quimby" not in detail
    return state, json.loads(detail)


def of(document: str) -> bytes:
    return message(part(document.encode(), "text/xml", filename="ccd.xml"))


at_once_or_not = pytest.mark.parametrize("at_once", [True, False], ids=["at once", "step by step"])


@at_once_or_not
async def test_a_document_of_the_patient_himself_is_linked(tmp_path: Path, at_once: bool) -> None:
    state, detail = await outcome(tmp_path, of(cda()), QUIMBY, at_once=at_once)
    assert state is State.LINKED
    assert detail["rule"] == EXACT
    assert detail["patient"] == "p1"
    assert detail["claims"] == {"signed_from": 1, "cda_header": 1}
    assert detail["contradictions"] == []
    assert detail["points"] > 0


@at_once_or_not
@pytest.mark.parametrize(
    ("document", "ground"),
    [
        (cda(given="Rosa", family="Delgado", born="19810402"), "chart_disagrees"),
        (cda(given="Tom", born="19950601", sex="M"), "chart_disagrees"),
        (cda(given="Adele"), "chart_disagrees"),
        (cda(given="Adda"), "doubtful_name"),
        (cda(born="19610413"), "chart_disagrees"),
        (cda(PERSON.format("Ada"), PERSON.format("Eve")), "sources_disagree"),
        ("<ClinicalDocument xmlns='urn:hl7-org:v3'><recordTarget>", "not_all_read"),
    ],
)
async def test_a_document_of_somebody_else_waits_for_a_person(
    tmp_path: Path, at_once: bool, document: str, ground: str
) -> None:
    state, detail = await outcome(tmp_path, of(document), QUIMBY, at_once=at_once)
    assert state is State.FILED
    assert "patient" not in detail
    assert detail["rule"] == f"evidence-1:{ground}"


@at_once_or_not
async def test_two_documents_of_two_people_are_a_conflict(tmp_path: Path, at_once: bool) -> None:
    other = cda(given="Rosa", family="Delgado", born="19810402")
    content = message(*(part(one.encode(), "text/xml") for one in (cda(), other)))
    state, detail = await outcome(tmp_path, content, QUIMBY, at_once=at_once)
    assert state is State.FILED
    assert detail["rule"] == "evidence-1:sources_disagree"
    assert detail["contradictions"] == ["birth_date", "family"]


@at_once_or_not
@pytest.mark.parametrize("standing", ["deceased", "inactive"])
async def test_a_patient_who_died_or_left_is_never_linked_however_exact(
    tmp_path: Path, at_once: bool, standing: str
) -> None:
    patient = replace(QUIMBY, deceased=True) if standing == "deceased" else replace(QUIMBY, active=False)
    state, detail = await outcome(tmp_path, of(cda()), patient, at_once=at_once)
    assert state is State.FILED
    assert detail["rule"] == f"evidence-1:{standing}"


@at_once_or_not
async def test_what_says_nothing_of_a_patient_is_linked_by_its_sender(tmp_path: Path, at_once: bool) -> None:
    content = message(part(b"%PDF-1.7 Rosa Delgado", "application/pdf", filename="letter.pdf"))
    state, detail = await outcome(tmp_path, content, QUIMBY, at_once=at_once)
    assert state is State.LINKED
    assert detail["rule"] == "address-book-1:sole_patient"
    assert "claims" not in detail


@at_once_or_not
async def test_exact_demographics_from_an_unknown_sender_wait_for_a_person(tmp_path: Path, at_once: bool) -> None:
    """Only the documented patients are compared here, and demographics alone never link (CX-12)."""
    patient = replace(QUIMBY, direct_addresses=())
    state, detail = await outcome(tmp_path, of(cda()), patient, at_once=at_once)
    assert state is State.FILED
    assert detail["entries"] == 0


@pytest.mark.parametrize("name", ["XDM_FULL.ZIP", "XDM_LIM.ZIP"])
async def test_a_package_that_names_two_people_is_a_conflict(tmp_path: Path, shared_data: Path, name: str) -> None:
    """ONC's packages: METADATA.XML names one patient, the document inside another (CX-20)."""
    found = sorted((shared_data / "clinical" / "ccda").rglob(name))
    assert found
    isabella = replace(QUIMBY, family="Jones", given="Isabella", birth_date=date(1947, 5, 1))
    for package in found:
        folder = tmp_path / str(found.index(package))
        folder.mkdir()
        content = message(part(package.read_bytes(), "application/zip", filename="xdm.zip"))
        state, detail = await outcome(folder, content, isabella, at_once=True)
        assert state is State.FILED
        assert detail["rule"] == "evidence-1:sources_disagree"
        assert {"birth_date", "family"} <= set(detail["contradictions"])
