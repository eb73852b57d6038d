"""Plug-ins as real packages in processes of their own: the gateway goes on whatever they do; the kit finds them out."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.cli.main import main
from gateway.core.errors import ImporterGoneError, ImportFailedError, ImportRefusedError
from gateway.core.import_settings import PLUGIN, ImporterSettings
from gateway.importers import conformance
from gateway.importers.conformance import CHECKS, ImporterConformance, Subject, _own_blocked, request, run_check
from gateway.importers.plugin import PluginImporter
from gateway.importers.plugin_loading import PluginError, find, installed
from gateway.ports import PatientImporter
from tests.support.plugin_packages import SOUND, changed, install

Made = Callable[[str], PluginImporter]
RETURN = 'return f"file {request.link.id}"'


@pytest.fixture
def options(tmp_path: Path) -> Path:
    (tmp_path / "kept").mkdir()
    path = tmp_path / "options.toml"
    path.write_text(f"folder = {json.dumps(str(tmp_path / 'kept'))}\n")
    return path


@pytest.fixture
def made(tmp_path: Path, options: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    def make(source: str) -> PluginImporter:
        install(tmp_path / "site", "test", source, monkeypatch)
        settings = ImporterSettings(
            name="ehr", kind=PLUGIN, plugin="test", options_file=options, max_memory_mib=600, timeout_seconds=5
        )
        return PluginImporter(settings)

    return make


async def nack(importer: PluginImporter) -> str:
    with pytest.raises(ImportFailedError) as caught:
        await importer.import_message(request())
    return caught.value.reason


async def test_a_sound_plugin(made: Made, tmp_path: Path) -> None:
    importer, asked = made(SOUND), request(odd=True)
    try:
        assert await importer.import_message(asked) == f"file {asked.link.id}"
        assert (tmp_path / "kept" / asked.link.id).read_text() == asked.patient.family
        assert await importer.check() is None
        assert json.loads((await importer.preview(asked)).data) == {"link": asked.link.id}
        (tmp_path / "kept").rename(tmp_path / "away")
        assert await importer.check() == "the folder is not there"
    finally:
        await importer.close()


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        ("return None", "unusable_receipt"),
        ("return b'bytes'", "unusable_receipt"),
        ("return {'id': 1}", "unusable_receipt"),
        ("raise ValueError(request.patient.family)", "raised_valueerror"),
        ("raise asyncio.CancelledError", "cancelled"),
        ("import os; os._exit(3)", "plugin_ended"),
        ("import os; os.kill(os.getpid(), 11)", "plugin_ended"),
        ("raise SystemExit", "plugin_ended"),
        ("x = bytearray(1 << 30)", "raised_memoryerror"),
    ],
)
async def test_what_a_plugin_does_wrong_is_a_nack_and_no_more(made: Made, does: str, reason: str) -> None:
    importer = made(changed(RETURN, does))
    try:
        assert await nack(importer) == reason
        # And again: an ended process is started anew.
        assert await nack(importer) == reason
    finally:
        await importer.close()


async def test_the_nacks_of_a_plugin(made: Made) -> None:
    source = changed(
        RETURN,
        "from gateway.core.errors import ImporterGoneError, ImportFailedError\n"
        "        kind = request.subject\n"
        "        if kind == 'gone': raise ImporterGoneError('x', reason='closed')\n"
        "        if kind == 'never': raise ImportRefusedError('x', reason='unknown_patient')\n"
        "        raise ImportFailedError('x', reason='busy', retry_after_seconds=90)",
    )
    from dataclasses import replace

    importer = made(source)
    try:
        with pytest.raises(ImporterGoneError):
            await importer.import_message(replace(request(), subject="gone"))
        with pytest.raises(ImportRefusedError) as refused:
            await importer.import_message(replace(request(), subject="never"))
        with pytest.raises(ImportFailedError) as failed:
            await importer.import_message(request())
    finally:
        await importer.close()
    assert refused.value.reason == "unknown_patient"
    assert (failed.value.reason, failed.value.retry_after_seconds) == ("busy", 90)


async def test_one_that_blocks_blocks_itself_only_and_is_killed(made: Made, tmp_path: Path) -> None:
    source = changed(RETURN, f"import os, time; open('{tmp_path}/pid', 'w').write(str(os.getpid())); time.sleep(600)")
    importer = made(source)
    try:
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(4):
                await importer.import_message(request())
        assert time.monotonic() - begun < 8
        blocked = int((tmp_path / "pid").read_text())
        deadline = time.monotonic() + 10
        while Path(f"/proc/{blocked}").exists() and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        assert not Path(f"/proc/{blocked}").exists()
    finally:
        await importer.close()


async def test_one_that_awaits_too_long_is_cancelled_and_lives(made: Made, tmp_path: Path) -> None:
    source = changed(RETURN, "if request.subject == 'test' and not (self.folder / 'x').exists():\n"
                     "            (self.folder / 'x').touch(); await asyncio.sleep(600)\n"
                     "        import os; return f'pid {os.getpid()}'")  # fmt: skip
    importer = made(source)
    try:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await importer.import_message(request())
        host = importer._host
        assert host is not None
        assert await importer.import_message(request()) == f"pid {host.process.pid}"
    finally:
        await importer.close()


async def test_what_it_prints_and_reads_is_not_ours(made: Made) -> None:
    source = changed(
        RETURN, "print('x' * 100_000); import sys; sys.stdin.read(); sys.stderr.write('y')\n        " + RETURN
    )
    importer, asked = made(source), request()
    try:
        assert await importer.import_message(asked) == f"file {asked.link.id}"
    finally:
        await importer.close()


async def test_it_has_nothing_of_the_gateways(made: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    held = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(held, True)
    source = changed(RETURN, "import os; return str('SECRET_TOKEN' in os.environ) + ' ' + ' '.join("
                     "os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd') "
                     "if os.path.exists(f'/proc/self/fd/{n}'))")  # fmt: skip
    importer = made(source)
    try:
        receipt = await importer.import_message(request())
    finally:
        await importer.close()
        os.close(held)
    assert receipt.startswith("False ")
    assert str(tmp_path) not in receipt


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (changed("api_version = IMPORTER_API_VERSION", "api_version = 99"), "api_version"),
        (changed("    async def close(self):\n        pass\n", ""), "no_importer"),
        (changed("async def retract", "def retract"), "no_importer"),
        (changed('options["folder"]', 'options["nowhere"]'), "cannot_load"),
        ("import nothing_of_that_name", "cannot_load"),
        ("while True: pass", "cannot_load"),
    ],
    ids=["version", "method", "not async", "raises", "import", "hangs"],
)
async def test_one_that_does_not_load(made: Made, source: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if source.startswith("while"):
        monkeypatch.setattr("gateway.importers.plugin.LOAD_SECONDS", 2.0)
    importer = made(source)
    try:
        assert await nack(importer) == reason
    finally:
        await importer.close()


def test_to_find_a_plugin_runs_nothing_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "site", "bomb", "raise SystemExit('run')", monkeypatch)
    assert "bomb" in {one.name for one in installed()}
    assert find("bomb").name == "bomb"
    with pytest.raises(PluginError, match="bomb"):
        find("no-such")


# --- the kit ---


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_kit_passes_a_sound_plugin(made: Made, check: object, tmp_path: Path) -> None:
    first = made(SOUND)
    settings = first._settings
    subject = Subject(lambda: PluginImporter(settings), conformance._plugin_blocked)
    assert (await run_check(check, subject)).problem == ""  # type: ignore[arg-type]


BROKEN: dict[str, tuple[str, str]] = {
    "shape": ('return None if self.folder.is_dir() else "the folder is not there"', 'return "not there"'),
    "twice": (RETURN, "import uuid; return uuid.uuid4().hex"),
    "crash_between": (RETURN, "import os; return f'{request.link.id} {id(self)}'"),
    "at_once": (
        RETURN,
        "self.n = n = getattr(self, 'n', 0) + 1; await asyncio.sleep(0.1); return f'{request.link.id} {n}'",
    ),
    "odd_text": (RETURN, "request.patient.family.encode('ascii'); " + RETURN),
    "one_part": (RETURN, "assert request.content; " + RETURN),
    "large": (RETURN, "assert len(request.content) < 1_000_000; " + RETURN),
    "loop_goes_on": (RETURN, "import time; time.sleep(1.3); " + RETURN),
    "cancelled": (
        RETURN,
        (
            "try:\n            await asyncio.sleep(0.2)\n        except asyncio.CancelledError:\n"
            "            await asyncio.sleep(30)\n        " + RETURN
        ),
    ),
    "retracted_twice": ('return f"file {retraction.key}"', "import uuid; return uuid.uuid4().hex"),
    "previewed": (
        'return ImportPreview("application/json", json.dumps({"link": request.link.id}).encode())',
        "return 7",
    ),
}


def own(source: str, options: dict[str, str]) -> Callable[[], PatientImporter]:
    """The plug-in in this process, as an author tests it."""
    names: dict[str, object] = {}
    exec(source, names)  # noqa: S102 - our own text
    make: Callable[[dict[str, str]], PatientImporter] = names["Importer"]  # type: ignore[assignment]
    return lambda: make(options)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_kit_finds_what_is_broken(check: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that cannot fail would be worth nothing."""
    name = check.__name__  # type: ignore[attr-defined]
    monkeypatch.setattr(conformance, "CANCEL_SECONDS", 0.5)
    make = own(changed(*BROKEN[name]), {"folder": str(tmp_path)})
    assert (await run_check(check, Subject(make, _own_blocked))).problem != ""  # type: ignore[arg-type]


class TestKitForPytest(ImporterConformance):
    """As an author would write it."""

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self.path = tmp_path

    def make(self) -> PatientImporter:
        return own(SOUND, {"folder": str(self.path)})()


def test_the_command(
    tmp_path: Path, options: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(tmp_path / "site", "sound", SOUND, monkeypatch)
    install(tmp_path / "site", "broken", changed(*BROKEN["twice"]), monkeypatch)
    monkeypatch.setattr(conformance, "CHECKS", (conformance.shape, conformance.twice))
    assert main(["plugin", "list", "--json"]) == 0
    assert {"sound", "broken"} <= {one["name"] for one in json.loads(capsys.readouterr().out)}
    assert main(["plugin", "test", "sound", "--options", str(options), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["conforms"], [one["name"] for one in told["checks"]]) == (True, ["shape", "twice"])
    assert main(["plugin", "test", "broken", "--options", str(options)]) == 1
    assert "FAIL  twice: " in capsys.readouterr().out
    assert main(["plugin", "test", "no-such"]) == 1
    assert main(["plugin", "test", "sound", "--options", str(tmp_path / "no-such")]) == 2
