"""What a person has undone, the link step leaves alone; what importers are asked of a part is that part (S46, S49)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.charts.service import Charts
from gateway.core.errors import NotFoundError
from gateway.core.lifecycle import JobKind, State
from gateway.hl7.mdm import MDMRules, import_message
from gateway.importers.documents import encoded, import_document, request_of
from gateway.importers.folder import FolderImporter
from gateway.importers.webhook import LINKED, payload
from gateway.pipeline.import_request import completed, request_for
from gateway.pipeline.message_view import view_message
from gateway.ports import ImportRequest, Patient, Retraction
from gateway.store.sql_store import SQLStore
from tests.unit.pipeline.link_harness import (
    ANN,
    CONTENT,
    START,
    add_patients,
    audit,
    claim,
    filed,
    linker,
    links,
    open_jobs,
    state,
)

WHY = "other Ann"


async def test_an_automatic_link_that_was_undone_is_not_made_again(store: SQLStore, charts: Charts) -> None:
    add_patients(store, Patient("p1", direct_addresses=(ANN,)))
    filed(store)
    await linker(store)(claim(store, JobKind.LINK))
    [made] = links(store)
    outcome = await charts.unlink(made.id, actor="olga", reason=WHY)
    assert "the next one like it" in outcome.notice
    store.write_blocking(lambda tx: tx.jobs.enqueue(JobKind.LINK, "M1"))
    written = len(audit(store))
    await linker(store)(claim(store, JobKind.LINK, minutes=5))
    assert links(store) == []
    assert state(store) is State.FILED
    assert len(audit(store)) == written
    assert open_jobs(store) == []


async def test_a_link_that_was_undone_before_the_step_came_is_not_made(store: SQLStore, charts: Charts) -> None:
    add_patients(store, Patient("p1", direct_addresses=(ANN,)))
    filed(store)
    job = claim(store, JobKind.LINK)
    made = await charts.link("M1", "p1", actor="olga")
    await charts.unlink(made.link.id, actor="olga", reason=WHY)
    await linker(store)(job)
    assert links(store) == []


async def test_a_copy_of_what_was_undone_is_not_linked(store: SQLStore, charts: Charts) -> None:
    add_patients(store, Patient("p1", direct_addresses=(ANN,)))
    filed(store)
    made = await charts.link("M1", "p1", actor="olga")
    await charts.unlink(made.link.id, actor="olga", reason=WHY)
    for job in store.write_blocking(lambda tx: tx.jobs.claim(60, 9)):
        store.write_blocking(lambda tx, done=job: tx.jobs.finish(done))  # type: ignore[misc]
    filed(store, "M2")
    await linker(store)(claim(store, JobKind.LINK, minutes=5))
    assert store.read_blocking(lambda tx: tx.links.for_message("M2")) == []


# --- one part ---


@pytest.fixture
async def request_of_part(store: SQLStore, charts: Charts) -> ImportRequest:
    add_patients(store, Patient("p1", mrn="M1"))
    link = (await charts.link(filed(store), "p1", actor="olga", part="2")).link
    asked = store.read_blocking(lambda tx: request_for(tx, link.id, with_bytes=True))
    return completed(asked, view_message)


def test_a_request_of_a_part_holds_nothing_else_of_the_message(request_of_part: ImportRequest) -> None:
    asked = request_of_part
    assert (asked.link.part, asked.content, asked.text, asked.subject) == ("2", b"", "", "")
    assert [(part.number, part.content_type, part.data) for part in asked.parts] == [("2", "text/xml", b"<CDA/>")]
    assert asked.content_sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert asked.sent_at is not None
    told = encoded(import_document(asked))
    assert b"Please see" not in told
    assert b"results" not in told
    assert request_of(json.loads(told)) == asked
    assert json.loads(payload(LINKED, asked.link, START))["part"] == "2"


def test_who_reads_no_content_is_not_told_the_subject_either(store: SQLStore, request_of_part: ImportRequest) -> None:
    thin = store.read_blocking(lambda tx: request_for(tx, request_of_part.link.id, with_bytes=False))
    assert (thin.subject, thin.content) == ("", b"")


def test_a_part_that_is_not_there_is_an_error(request_of_part: ImportRequest) -> None:
    other = replace(request_of_part, link=replace(request_of_part.link, part="3"), content=CONTENT)
    with pytest.raises(NotFoundError):
        completed(other, view_message)


async def test_the_folder_gets_the_part_alone_and_can_retract_it(
    tmp_path: Path, request_of_part: ImportRequest
) -> None:
    folder = FolderImporter(tmp_path / "charts")
    try:
        receipt = await folder.import_message(request_of_part)
        assert receipt == await folder.import_message(request_of_part)
        await folder.retract(Retraction(request_of_part, receipt, WHY, "olga", START))
    finally:
        await folder.close()
    [patient_folder] = (tmp_path / "charts").iterdir()
    files = {str(path.relative_to(patient_folder)) for path in patient_folder.rglob("*") if path.is_file()}
    link_id = request_of_part.link.id
    assert {name.partition("/")[2] or "retracted" for name in files} == {
        "parts/01-ccd.xml",
        "record.json",
        "retracted",
    }
    record = json.loads(next(patient_folder.rglob("record.json")).read_bytes())
    assert (record["link"]["id"], record["link"]["part"]) == (link_id, "2")


def test_an_hl7_document_is_of_the_part_alone(request_of_part: ImportRequest) -> None:
    message = import_message(request_of_part, MDMRules("FAC", "EHR", "FAC", "HOSP"))
    assert message.count(b"\rOBX|") == 2
    assert b"Please see" not in message
    assert b"results" not in message
