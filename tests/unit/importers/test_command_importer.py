"""The command adapter with real programs: what they get, what their status means, and that nothing is left of them."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.core.errors import ImportFailedError, ImportRefusedError
from gateway.core.import_settings import ImporterSettings
from gateway.importers.command import CommandImporter
from gateway.importers.conformance import CHECKS, Subject, _own_blocked, request, run_check
from gateway.importers.documents import encoded, import_document, request_of, retraction_document, retraction_of
from gateway.ports import Retraction

Made = Callable[[str], CommandImporter]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """A command from a shell script; ``@`` in it is the folder of the test."""

    def make(script: str) -> CommandImporter:
        path = tmp_path / "command.sh"
        path.write_text("#!/bin/sh\n" + script.replace("@", str(tmp_path)))
        path.chmod(0o755)
        return CommandImporter(ImporterSettings(name="ehr", kind="command", argv=(str(path), "one word", "$HOME; id")))

    return make


async def nack(command: CommandImporter) -> str:
    with pytest.raises(ImportFailedError) as caught:
        await command.import_message(request())
    return caught.value.reason


async def test_what_a_program_gets(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    script = 'cat > @/input; env > @/env; printf "%s\\n" "$1" "$2" > @/words; pwd > @/pwd; '
    script += "ls /proc/self/fd > @/fds; echo got-it"
    asked = request(odd=True)
    held = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(held, True)
    try:
        assert await made(script).import_message(asked) == "got-it"
    finally:
        os.close(held)
    document = json.loads((tmp_path / "input").read_bytes())
    assert (document["api_version"], document["action"], document["key"]) == (1, "import", asked.link.id)
    assert document["patient"]["family"] == asked.patient.family
    assert base64.b64decode(document["message"]["content_base64"]) == asked.content
    assert document["message"]["parts"][0]["filename"] == asked.parts[0].filename
    assert request_of(document) == asked
    assert (tmp_path / "words").read_text() == "one word\n$HOME; id\n", "no shell has read them"
    environment = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
    assert "SECRET_TOKEN" not in environment
    assert {key for key in environment if key.startswith("DIRECT")} == {
        "DIRECT_GATEWAY_ACTION",
        "DIRECT_GATEWAY_API_VERSION",
        "DIRECT_GATEWAY_KEY",
    }
    assert (tmp_path / "pwd").read_text().strip() == "/"
    # The three pipes, and the folder that ls itself has open.
    assert len((tmp_path / "fds").read_text().split()) == 4


async def test_a_retraction_is_told_with_its_receipt(made: Made, tmp_path: Path) -> None:
    wanted = Retraction(request(), "doc-7", "wrong chart", "olga", datetime(2026, 2, 3, tzinfo=UTC))
    assert await made("cat > @/input; echo undone").retract(wanted) == "undone"
    document = json.loads((tmp_path / "input").read_bytes())
    assert (document["action"], document["key"]) == ("retract", wanted.key)
    assert retraction_of(document) == wanted
    assert json.loads(encoded(retraction_document(wanted))) == document
    assert encoded(document | {"x": 1}) == json.dumps(document | {"x": 1}, separators=(",", ":")).encode() + b"\n"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exit 75", "exit_75"),
        ("exit 1", "exit_1"),
        ("exit 255", "exit_255"),
        ("kill -9 $$", "signal_9"),
        ("true", "unusable_receipt"),
        ("echo '   '", "unusable_receipt"),
        ("printf '\\377\\n'", "unusable_receipt"),
        ("printf '\\033[31mred\\n'", "unusable_receipt"),
        ("yes | head -c 100000", "output_too_long"),
        ("head -c 2000 /dev/zero | tr '\\0' x; echo", "unusable_receipt"),
    ],
)
async def test_what_is_tried_again(made: Made, script: str, reason: str) -> None:
    assert await nack(made(script)) == reason


async def test_65_is_for_good(made: Made) -> None:
    with pytest.raises(ImportRefusedError) as caught:
        await made("exit 65").import_message(request())
    assert caught.value.reason == "exit_65"


async def test_one_that_is_not_there_or_no_program(made: Made, tmp_path: Path) -> None:
    absent = CommandImporter(ImporterSettings(name="ehr", kind="command", argv=("/no/such/program",)))
    assert await nack(absent) == "cannot_start"
    assert "there is no program" in str(await absent.check())
    command = made("exit 0")
    assert await command.check() is None
    (tmp_path / "command.sh").chmod(0o777)
    assert "others may write" in str(await command.check())
    (tmp_path / "command.sh").chmod(0o644)
    assert "chmod +x" in str(await command.check())


async def test_one_that_does_not_read_its_input(made: Made) -> None:
    assert await made("echo ok").import_message(request(large=True)) == "ok"


async def test_one_that_takes_too_long_is_killed_with_all_that_it_started(made: Made, tmp_path: Path) -> None:
    command = made("sleep 600 & echo $! > @/child; sleep 600")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2):
            await command.import_message(request())
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 10
    while _runs(child) and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    assert not _runs(child)


async def test_what_it_leaves_behind_holds_nothing_up(made: Made, tmp_path: Path) -> None:
    begun = time.monotonic()
    assert await made("sleep 600 & echo $! > @/child; echo done").import_message(request()) == "done"
    assert time.monotonic() - begun < 30
    assert not _runs(int((tmp_path / "child").read_text()))


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_a_preview_shows_no_bytes_and_runs_nothing(made: Made, tmp_path: Path) -> None:
    asked = request()
    shown = json.loads((await made("touch @/ran; echo ok").preview(asked)).data)
    assert shown["message"]["content_base64"].startswith("... ")
    assert shown["link"]["id"] == asked.link.id
    assert not (tmp_path / "ran").exists()


def test_documents_of_hostile_texts_come_back() -> None:
    from dataclasses import replace

    asked = replace(request(odd=True), subject="\ud800 \x00 \u202e", text="")
    assert request_of(json.loads(encoded(import_document(asked)))) == asked
    hopeless: list[dict[str, object]] = [{}, {"message": {}}, {"message": []}]
    for broken in hopeless:
        with pytest.raises(ValueError, match="no request"):
            request_of(broken)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_a_sound_command_keeps_the_contract(made: Made, check: object) -> None:
    command = 'cat > /dev/null; echo "doc-$DIRECT_GATEWAY_KEY"'
    result = await run_check(check, Subject(lambda: made(command), _own_blocked))  # type: ignore[arg-type]
    assert result.problem == ""
