"""F45: the FHIR server fails in every way at every step, is restarted and hangs; the daemon is killed meanwhile.

What must hold: every link is on the chart once and whole, whatever was answered and whenever; what is no success is
tried again and never set aside; mail goes on at its pace.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.core.errors import ImportFailedError
from gateway.importers.conformance import request
from gateway.importers.fhir import importer as fhir_importer
from gateway.ports import Retraction
from tests.protocol.test_delivery_end_to_end import SENDER, deliver
from tests.support.direct_messages import inner_message
from tests.support.fhir_server import FHIRServer
from tests.support.fhir_target import BARE, STEPS, client_of, ec_key, importer_for, violations
from tests.support.gateway_process import Practice, free_ports, wait_for
from tests.support.pki import Authority

FAULTS: list[tuple[str, ...]] = [
    ("cut_before",),
    ("cut_after",),
    ("half",),
    ("bad_json",),
    ("status", "500"),
    ("status", "503", "3"),
    ("status", "429", "3"),
    ("status", "401"),
    ("expire",),
    ("outcome", "400", "transient"),
    ("outcome", "409", "conflict"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FHIRServer]:
    [port] = free_ports(1)
    made = FHIRServer(tmp_path_factory.mktemp("fhir"), port).start()
    yield made
    made.kill()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    return client_of(tmp_path_factory.mktemp("client"), ec_key())


async def attempt(server: FHIRServer, settings: dict[str, Any], asked: Any, seconds: float = 20) -> str:
    """One attempt by a gateway that has just started; the receipt, or nothing after a nack for now."""
    importer = importer_for(server, **settings)
    try:
        async with asyncio.timeout(seconds):
            return await importer.import_message(asked)
    except (ImportFailedError, TimeoutError):
        return ""
    finally:
        await importer.close()


async def steps_of(server: FHIRServer, settings: dict[str, Any]) -> int:
    """How many requests an import takes."""
    server.clear()
    server.behave()
    asked = request()
    server.add_patient(asked.patient.id)
    assert await attempt(server, settings, asked)
    return len(server.requests())


def fresh(server: FHIRServer) -> Any:
    asked = request()
    server.clear()
    server.add_patient(asked.patient.id)
    return asked


VARIANTS = [{}, pytest.param(STEPS, marks=pytest.mark.slow), pytest.param(BARE, marks=pytest.mark.slow)]


@pytest.mark.parametrize("variant", VARIANTS, ids=["transaction", "steps", "bare"])
async def test_f45_every_fault_at_every_step(
    server: FHIRServer,
    client: tuple[dict[str, Any], dict[str, Any]],
    variant: dict[str, Any],
    report: Callable[[str], None],
) -> None:
    settings, known = client
    server.vary(**variant, client=known)
    steps = await steps_of(server, settings)
    points = 0
    for step in range(1, steps + 1):
        for fault in FAULTS:
            asked = fresh(server)
            server.behave(*fault, at=step)
            first = await attempt(server, settings, asked)
            server.behave()
            second = await attempt(server, settings, asked)
            assert second, (step, fault)
            assert first in {"", second}, (step, fault)
            assert violations(server, [asked], variant) == [], (step, fault)
            points += 1
    report(f"F45 ({len(variant)} less): points={points} steps={steps} lost=0 twice=0")


@pytest.mark.parametrize("variant", VARIANTS[:2], ids=["transaction", "steps"])
async def test_f45_a_server_that_hangs_at_every_step(
    server: FHIRServer, client: tuple[dict[str, Any], dict[str, Any]], variant: dict[str, Any]
) -> None:
    settings, known = client
    server.vary(**variant, client=known)
    for step in range(1, await steps_of(server, settings) + 1):
        asked = fresh(server)
        server.behave("hang_after", at=step)
        assert not await attempt(server, settings, asked, seconds=0.5)
        server.behave()
        assert await attempt(server, settings, asked)
        assert violations(server, [asked], variant) == [], step


@pytest.mark.slow
async def test_f45_a_server_that_dies_at_every_step(
    server: FHIRServer, client: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    settings, known = client
    server.vary(**STEPS, client=known)
    for step in range(1, await steps_of(server, settings) + 1):
        asked = fresh(server)
        server.behave("die_after", at=step)
        assert not await attempt(server, settings, asked)
        server.behave()
        server.restart()
        assert await attempt(server, settings, asked)
        assert violations(server, [asked], STEPS) == [], step


@pytest.mark.parametrize("variant", [{}, {"patch": True}], ids=["put", "patch"])
async def test_f45_a_retraction_goes_on_where_it_ended(server: FHIRServer, variant: dict[str, Any]) -> None:
    server.vary(**variant)
    asked = fresh(server)
    server.behave()
    receipt = await attempt(server, {}, asked)
    wanted = Retraction(asked, receipt, "wrong chart", "olga", asked.received_at)
    before = len(server.requests())
    importer = importer_for(server)
    await importer.retract(wanted)
    steps = len(server.requests()) - before
    for step in range(1, steps + 1):
        for fault in (("cut_before",), ("cut_after",), ("half",), ("status", "503"), ("outcome", "409", "conflict")):
            asked = fresh(server)
            server.behave()
            receipt = await attempt(server, {}, asked)
            wanted = dataclasses.replace(wanted, request=asked, receipt=receipt)
            server.behave(*fault, at=step)
            with contextlib.suppress(ImportFailedError):
                await importer_for(server).retract(wanted)
            server.behave()
            told = await importer_for(server).retract(wanted)
            assert told == await importer_for(server).retract(wanted)
            marked = [*server.resources("DocumentReference"), *server.resources("Communication")]
            assert {one["status"] for one in marked} == {"entered-in-error"}, (step, fault)
            assert {one["meta"]["versionId"] for one in marked} == {"2"}, "changed once"
            assert violations(server, [asked], {}) == []


async def test_f45_finds_a_create_without_its_condition(server: FHIRServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The seeded bug: the condition of a create names something else at each attempt."""
    server.vary(**STEPS)
    asked = fresh(server)
    server.behave("cut_after", at=4)
    assert not await attempt(server, {}, asked)
    server.behave()
    kept = fhir_importer.FHIRImporter._create_if_none

    async def forgetful(self: Any, kind: str, resource: Any, condition: str, able: Any) -> str:
        return await kept(self, kind, resource, f"{condition}x", able)

    monkeypatch.setattr(fhir_importer.FHIRImporter, "_create_if_none", forgetful)
    assert await attempt(server, {}, asked)
    assert violations(server, [asked], STEPS) != []


@pytest.mark.slow
def test_f45_from_the_mail_to_the_chart_through_every_fault(
    tmp_path: Path, partner_ca: Authority, client: tuple[dict[str, Any], dict[str, Any]], report: Callable[[str], None]
) -> None:
    """The server fails, hangs and is restarted, and the gateway is killed: one set of resources, and mail goes on."""
    settings, known = client
    (tmp_path / "fhir").mkdir()
    [port] = free_ports(1)
    server = FHIRServer(tmp_path / "fhir", port)
    server.vary(**STEPS, client=known)
    practice = Practice.make(tmp_path / "practice")
    practice.trust(partner_ca.pem)
    target = {
        "name": "ehr", "kind": "fhir", "url": server.url, "allow": ["127.0.0.1"], "client_id": settings["client_id"],
        "key_file": str(settings["key_file"]), "kid": settings["kid"], "timeout_seconds": 2, "retry_seconds": [1] * 50,
        "patient_identifier_system": "urn:oid:1.2.3",
    }  # fmt: skip
    text = "\n[[importer]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in target.items())
    practice.config.write_text(practice.config.read_text() + text)
    patients = tmp_path / "patients.csv"
    patients.write_text("id,mrn,family,given,dob,sex\n7,M7,Quimby,Ann,1961-02-03,F\n")
    practice.run("patient", "import", str(patients))
    practice.run("config", "check")
    practice.start()
    try:
        deliver(practice, partner_ca, inner_message(SENDER, practice.addresses))
        [message] = practice.settled(1)
        shown = json.loads(practice.run("import", "dry-run", message["id"], "7", "--target", "ehr", "--json").stdout)
        assert "no such" not in json.dumps(shown)
        assert server.requests() == [], "a dry run tells nobody"
        server.start()
        server.add_patient("p-7", identifier=[{"system": "urn:oid:1.2.3", "value": "M7"}], birthDate="1961-02-03")
        faults = [("cut_after",), ("half",), ("status", "503"), ("hang_after",), ("bad_json",), ("cut_before",)]
        for number, fault in enumerate(faults):
            # Some requests are answered and the following ones are not, so that some of it is there and some is not.
            answered = 5 - number % 3
            server.behave(*fault, at=answered, onward=True)
            wanted = len(server.requests()) + answered
            if number == 0:
                practice.run("link", "add", message["id"], "7")
            wait_for(lambda wanted=wanted: len(server.requests()) >= wanted, what=f"requests while {fault}")  # type: ignore[misc]
            if number == 2:
                practice.kill()
                server.restart()
                practice.start()
        server.kill()
        deliver(practice, partner_ca, inner_message(SENDER, practice.addresses, subject="the second one"))
        assert len(practice.settled(2)) == 2, "mail does not wait"
        server.behave()
        server.start()
        done = ["import", "list", "--target", "ehr", "--state", "done"]
        wait_for(lambda: practice.json(*done)["deliveries"], timeout=90, what="the receipt")
        [link] = practice.json("link", "list", "7")
        [communication] = server.resources("Communication")
        assert communication["subject"] == {"reference": "Patient/p-7"}
        assert communication["identifier"][0]["value"] == link["id"]
        documents = [one["identifier"][0]["value"] for one in server.resources("DocumentReference")]
        assert sorted(documents) == sorted(set(documents))
        assert f"{link['id']}.original" in documents
        assert [len(server.resources(kind)) for kind in ("Provenance", "Binary")] == [1, 1]
        practice.run("link", "undo", link["id"], "--reason", "wrong chart")
        marked = ("DocumentReference", "Communication")
        wait_for(
            lambda: {one["status"] for kind in marked for one in server.resources(kind)} == {"entered-in-error"},
            what="the retraction",
        )
        report(f"F45 (daemon): points={len(faults) + 2} lost=0 twice=0 requests={len(server.requests())}")
    finally:
        practice.stop()
        server.kill()
