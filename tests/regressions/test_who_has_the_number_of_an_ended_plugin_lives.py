"""A plug-in that had ended was killed by its number at the next call, days later, whoever had the number then."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from gateway.core.errors import ImportFailedError
from gateway.core.import_settings import PLUGIN, ImporterSettings
from gateway.importers.conformance import request
from gateway.importers.plugin import PluginImporter
from tests.support.plugin_packages import SOUND, changed, install

RETURN = 'return f"file {request.link.id}"'


def _made(tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> PluginImporter:
    install(tmp_path / "site", "test", source, monkeypatch)
    (tmp_path / "kept").mkdir()
    options = tmp_path / "options.toml"
    options.write_text(f'folder = "{tmp_path / "kept"}"\n')
    return PluginImporter(
        ImporterSettings(name="ehr", kind=PLUGIN, plugin="test", options_file=options, max_memory_mib=600)
    )


@pytest.mark.parametrize("ends_by", ["a call", "close"])
async def test_the_number_of_an_ended_process_is_not_used(
    ends_by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    importer = _made(tmp_path, SOUND, monkeypatch)
    await importer.ping()
    host = importer._host
    assert host is not None
    assert host.reading is not None
    os.kill(host.process.pid, signal.SIGKILL)
    await asyncio.wait({host.reading}, timeout=10)
    while host.process.returncode is None:
        await asyncio.sleep(0.01)
    killed: list[int] = []
    killpg = os.killpg

    def recorded(group: int, number: int) -> None:
        killed.append(group)
        killpg(group, number)

    monkeypatch.setattr(os, "killpg", recorded)
    if ends_by == "a call":
        await importer.ping()
    await importer.close()
    assert host.process.pid not in killed


async def test_what_an_ended_plugin_left_behind_ends_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note = tmp_path / "pid"
    leaves = (
        "import os, subprocess\n"
        "        child = subprocess.Popen(['sleep', '600'])\n"
        f"        open({str(note)!r}, 'w').write(str(child.pid))\n"
        "        os._exit(1)"
    )
    importer = _made(tmp_path, changed(RETURN, leaves), monkeypatch)
    with pytest.raises(ImportFailedError) as caught:
        await importer.import_message(request())
    assert caught.value.reason == "plugin_ended"
    child = int(note.read_text())
    async with asyncio.timeout(10):
        while _runs(child):
            await asyncio.sleep(0.02)
    await importer.close()


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
