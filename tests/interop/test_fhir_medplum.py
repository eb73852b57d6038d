"""The FHIR adapter against the FHIR router of Medplum and its validator of R4 (docs/fhir.md, How it was tried)."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.core.import_settings import ImporterSettings
from gateway.importers.conformance import request
from gateway.importers.fhir.importer import FHIRImporter
from gateway.importers.fhir.resources import SYSTEM
from gateway.keys.assertion_key import read_assertion_key
from gateway.observability.clock import SystemClock
from gateway.ports import ImportRequest, MessagePart, Retraction
from tests.support.gateway_process import free_ports, wait_for

SERVER = Path(__file__).resolve().parents[1] / "support/medplum/server.mjs"
MRN_SYSTEM = "urn:oid:1.2.3"
KINDS = ("DocumentReference", "Communication", "Provenance")


class Medplum:
    """The process, asked without the gateway's client."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/fhir"

    def ask(self, method: str, path: str, document: dict[str, Any] | None = None) -> dict[str, Any]:
        data = json.dumps(document).encode() if document else None
        headers = {"content-type": "application/fhir+json"}
        asked = urllib.request.Request(f"{self.url}/{path}", data, headers, method=method)  # noqa: S310 - our own
        with urllib.request.urlopen(asked, timeout=20) as answer:  # noqa: S310 - the same
            return dict(json.load(answer))

    def all(self, kind: str) -> list[dict[str, Any]]:
        return [one["resource"] for one in self.ask("GET", f"{kind}?_count=1000").get("entry", [])]


@pytest.fixture(params=["yes", "no"], ids=["transaction", "steps"])
def server(request: pytest.FixtureRequest) -> Iterator[Medplum]:
    modules, node = os.environ.get("GATEWAY_MEDPLUM", ""), shutil.which("node")
    if not modules or not node:
        pytest.skip("no Medplum here (GATEWAY_MEDPLUM); docs/fhir.md, How it was tried, tells how to get it")
    [port] = free_ports(1)
    environment = {**os.environ, "TRANSACTION": request.param}
    process = subprocess.Popen([node, str(SERVER), str(port), modules], env=environment)

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_for(listens, timeout=60, what="the server")
    made = Medplum(port)
    made.ask("POST", "Patient", {"resourceType": "Patient", "identifier": [{"system": MRN_SYSTEM, "value": "000"}]})
    yield made
    process.kill()
    process.wait()


def importer_for(server: Medplum) -> FHIRImporter:
    settings = ImporterSettings(
        name="ehr", kind="fhir", url=server.url, allow=("127.0.0.1",), patient_identifier_system=MRN_SYSTEM
    )
    return FHIRImporter(settings, SystemClock(), read_assertion_key)


def messages() -> list[ImportRequest]:
    patients_own = replace(request(), sender="ann@direct.example")
    html = MessagePart("", "text/html", b"<p>x</p>")
    return [request(), request(odd=True), patients_own, replace(request(), text="", parts=(html,), subject="")]


async def test_every_kind_of_message_is_taken_once_and_taken_back(server: Medplum) -> None:
    importer = importer_for(server)
    asked = messages()
    for one in asked:
        receipt = await importer.import_message(one)
        assert await importer_for(server).import_message(one) == receipt
        wanted = Retraction(one, receipt, "wrong chart", "olga", one.received_at)
        assert await importer.retract(wanted) == await importer.retract(wanted)
        assert await importer.import_message(one) == receipt
    made = {kind: server.all(kind) for kind in KINDS}
    assert {kind: len(found) for kind, found in made.items()} == {
        "DocumentReference": 2 * len(asked), "Communication": len(asked), "Provenance": len(asked),
    }  # fmt: skip
    links = {one["value"] for found in made["Communication"] for one in found["identifier"] if one["system"] == SYSTEM}
    assert links == {one.link.id for one in asked}
    assert {one["status"] for kind in KINDS[:2] for one in made[kind]} == {"entered-in-error"}
