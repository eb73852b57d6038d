"""``import check``: each target is asked, nothing is sent, and what it says is told as fit, degraded or unfit."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.fhir_server import FHIRServer
from tests.support.gateway_process import free_ports
from tests.unit.cli.clinic_harness import Clinic
from tests.unit.cli.test_import_commands import add_target


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FHIRServer]:
    folder = tmp_path / "fhir"
    folder.mkdir()
    [port] = free_ports(1)
    made = FHIRServer(folder, port).start()
    yield made
    made.kill()


def checked(clinic: Clinic, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[dict[str, Any]]]:
    capsys.readouterr()
    status = clinic.run("import", "check", "--json", *words)
    told: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return status, told


def test_fit_degraded_unfit_and_off(
    clinic: Clinic, server: FHIRServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fhir = {"name": "ehr", "kind": "fhir", "url": server.url, "allow": ["127.0.0.1"]}
    add_target(clinic, **fhir)
    add_target(clinic, name="later", kind="command", argv=["/nowhere"], enabled=False)
    status, [folder, ehr, later] = checked(clinic, capsys)
    assert (status, folder["state"], ehr["state"], later["state"]) == (0, "fit", "fit", "off")
    assert {one["path"] for one in server.requests()} == {"/fhir/metadata"}
    assert clinic.run("import", "check") == 0
    assert "ehr (fhir): fit\n" in capsys.readouterr().out
    server.vary(without=["Communication"])
    status, [ehr] = checked(clinic, capsys, "ehr")
    assert (status, ehr["state"]) == (0, "degraded")
    assert ehr["told"].startswith("no Communication")
    add_target(clinic, name="script", kind="command", argv=[str(tmp_path / "nothing")])
    status, found = checked(clinic, capsys)
    assert (status, [one["state"] for one in found]) == (1, ["fit", "degraded", "off", "unfit"])
    assert clinic.run("import", "check", "script") == 1
    assert "script (command): unfit: there is no program" in capsys.readouterr().out
    assert clinic.run("import", "check", "nobody") == 1
    assert "there is: folder, ehr, later, script" in capsys.readouterr().err


def test_one_that_says_nothing_is_unfit_after_its_time(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/fhir"
        add_target(clinic, name="ehr", kind="fhir", url=url, allow=["127.0.0.1"], timeout_seconds=1)
        status, [ehr] = checked(clinic, capsys, "ehr")
    assert (status, ehr["state"], ehr["told"]) == (1, "unfit", "no answer within 1 s")


def test_neither_a_target_nor_a_store_is_needed(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever sets a target up may do so before the first start."""
    for file in (clinic.directory / "data").glob("*.db*"):
        file.unlink()
    assert checked(clinic, capsys)[0] == 0
    config = Path(clinic.config)
    text = config.read_text()
    assert text.count("[charts]") == 1
    lines = [line for line in text.splitlines() if not line.startswith("folder_importer_dir")]
    config.write_text("\n".join(lines).replace("[charts]", '[charts]\nfolder_importer_dir = ""') + "\n")
    assert checked(clinic, capsys) == (0, [])
    assert clinic.run("import", "check") == 0
    assert "there is no target" in capsys.readouterr().out
    assert not list((clinic.directory / "data").glob("*.db*"))
