"""What docs/import-hook.md shows works when it is pasted."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.core.retry import IMPORT_SCHEDULE_SECONDS, WEBHOOK_SCHEDULE_SECONDS
from gateway.importers import conformance
from gateway.importers.conformance import request
from gateway.importers.documents import import_document
from gateway.importers.standard_webhooks import headers, secret_of
from gateway.importers.webhook import LINKED, payload
from gateway.settings import from_document

DOCUMENT = (Path(__file__).resolve().parents[3] / "docs/import-hook.md").read_text(encoding="utf-8")
SECRET = "whsec_" + "QUJD" * 8


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)


def test_the_verification_believes_us_and_nobody_else() -> None:
    import time

    names: dict[str, Any] = {}
    exec(next(block for block in blocks("python") if "def verified" in block), names)  # noqa: S102 - our own text
    verified: Callable[..., bool] = names["verified"]
    now, body = int(time.time()), payload(LINKED, request().link, request().received_at)
    other = "whsec_" + "REVG" * 8
    good = headers("L1", now, body, [secret_of(other), secret_of(SECRET)])
    assert verified(SECRET, good, body)
    assert not verified(SECRET, good, body + b" ")
    assert not verified(SECRET, good | {"webhook-id": "L2"}, body)
    assert not verified("whsec_" + "R0hJ" * 8, good, body)
    assert not verified(SECRET, headers("L1", now - 1_000, body, [secret_of(SECRET)]), body)


def test_the_payload_is_as_shown() -> None:
    [shown] = blocks("http")
    body = json.loads(shown.partition("\n\n")[2])
    real = json.loads(payload(LINKED, request().link, request().received_at))
    assert (list(body), list(body["data"])) == (list(real), list(real["data"]))


def test_the_document_of_a_command_is_as_shown() -> None:
    [shown] = [json.loads(block) for block in blocks("json")]
    real = import_document(request())
    assert set(shown) == set(real)
    for part in ("link", "message"):
        assert set(shown[part]) == set(real[part])
    assert set(shown["patient"]) <= set(real["patient"])
    assert set(shown["message"]["parts"][0]) == set(real["message"]["parts"][0])


def test_the_settings_are_taken(tmp_path: Path) -> None:
    tables = [tomllib.loads(block) for block in blocks("toml") if "[[importer]]" in block]
    every = {"importer": [table for one in tables for table in one["importer"]]}
    kinds = [target.kind for target in from_document(every, tmp_path).importer]
    assert kinds == ["webhook", "command", "plugin"]


def test_the_schedules_are_as_told() -> None:
    def words(seconds: float) -> str:
        for size, unit in ((3600, "h"), (60, "min"), (1, "s")):
            if seconds >= size:
                return f"{seconds / size:g} {unit}"
        raise AssertionError

    for schedule in (WEBHOOK_SCHEDULE_SECONDS, IMPORT_SCHEDULE_SECONDS):
        told = [words(one) for one in schedule]
        assert f"{', '.join(told[:-1])} and {told[-1]}" in DOCUMENT


@pytest.mark.slow
def test_the_plugin_installs_and_keeps_the_contract(tmp_path: Path) -> None:
    """By pip, into a folder of its own, and by the command of an operator."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "pyproject.toml").write_text(next(block for block in blocks("toml") if "# pyproject.toml" in block))
    (source / "my_ehr_importer.py").write_text(_skeleton())
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(site), str(source)]
    subprocess.run(pip, check=True, timeout=300)
    (tmp_path / "records").mkdir()
    options = tmp_path / "my-ehr.toml"
    options.write_text(f"folder = {json.dumps(str(tmp_path / 'records'))}\n")
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "plugin", "test", "my-ehr", "--options", str(options), "--json"],
        env={"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        check=False,
        timeout=300,
    )
    told = json.loads(done.stdout)
    assert (done.returncode, told["conforms"]) == (0, True), told
    assert len(told["checks"]) == len(conformance.CHECKS)


def _skeleton() -> str:
    return next(block for block in blocks("python") if block.startswith("# my_ehr_importer.py"))


class TestTheSkeleton(conformance.ImporterConformance):
    """As its author would test it."""

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self.path = tmp_path

    def make(self) -> Any:
        names: dict[str, Any] = {}
        exec(_skeleton(), names)  # noqa: S102 - our own text
        return names["Importer"]({"folder": str(self.path)})
