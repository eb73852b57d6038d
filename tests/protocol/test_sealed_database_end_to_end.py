"""The database of a daemon that took mail: what was in the mail is nowhere in its files, and still served."""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path

from tests.support.direct_messages import CryptographyStack, direct_message, inner_message
from tests.support.gateway_process import COMMAND, Practice, wait_for
from tests.support.pki import Authority

SENDER = "jane.doe@phr.example"
STACK = CryptographyStack()
CANARY = "Kanarienvogel-Befund-4711"


def files_with(practice: Practice, needles: list[bytes]) -> list[str]:
    """The files of the database that hold one of the needles, in any case."""
    return [
        f"{path.name}: {needle!r}"
        for path in sorted((practice.directory / "data").rglob("*"))
        if path.is_file()
        for needle in needles
        if needle.lower() in path.read_bytes().lower()
    ]


def deliver(practice: Practice, partner: Authority, text: str) -> tuple[bytes, bytes]:
    inner = inner_message(SENDER, practice.addresses, text=text)
    raw = direct_message(
        STACK, inner, sender=SENDER, recipients=practice.addresses, signer=partner.issue(address=SENDER),
        to=[practice.identity()],
    )  # fmt: skip
    assert practice.send(raw, SENDER, practice.addresses)[0] == 250
    practice.settled(1)
    return inner, raw


def test_nothing_of_a_message_is_in_the_files_of_the_database(practice: Practice, partner_ca: Authority) -> None:
    inner, raw = deliver(practice, partner_ca, f"{CANARY} is positive.\r\n")
    assert practice.inbox() == [inner]
    with practice.imap() as client:
        client.select("INBOX", readonly=True)
        assert client.search(None, "BODY", f'"{CANARY.upper()}"') == ("OK", [b"1"])
    lines = raw.split(b"\r\n")
    ciphertext = max(lines, key=len)
    assert len(ciphertext) > 60
    needles = [CANARY.encode(), base64.b64encode(CANARY.encode())[:20], CANARY.encode("utf-16-le"), ciphertext]
    assert {"gateway.db", "gateway.db-wal"} <= {path.name for path in (practice.directory / "data").iterdir()}
    assert files_with(practice, needles) == []
    # The search is believed, because it finds what does stand there in clear.
    assert files_with(practice, [SENDER.encode()]) != []
    practice.stop()
    assert files_with(practice, needles) == []
    practice.start()
    assert practice.inbox() == [inner]


def test_a_start_without_the_key_is_refused_by_its_id_and_makes_no_other(
    practice: Practice, partner_ca: Authority
) -> None:
    inner, _ = deliver(practice, partner_ca, "text\r\n")
    practice.stop()
    [kek] = practice.json("keys", "list")
    key_file = practice.directory / "certs" / "store" / "bodies.keys"
    kept = practice.directory / "kept.keys"
    key_file.rename(kept)

    def refused() -> str:
        done = subprocess.run(
            [*COMMAND, "serve", "--config", str(practice.config)], capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr

    assert f"there is no file {key_file}" in refused()
    assert not key_file.exists()
    made = practice.run("keys", "make", check=False)
    assert made.returncode == 2
    assert kek["kek_id"] in made.stderr.decode()
    assert not key_file.exists()
    printed = subprocess.run([*COMMAND, "keys", "make", "--print"], capture_output=True, timeout=60, check=True).stdout
    key_file.write_bytes(printed)
    key_file.chmod(0o600)
    assert f"the key {kek['kek_id']}, which stored mail rests on, is not in" in refused()
    check = practice.run("config", "check", check=False)
    assert check.returncode == 2
    assert kek["kek_id"] in check.stderr.decode()
    shutil.copy(kept, key_file)
    practice.start()
    assert practice.inbox() == [inner]


def test_a_rotation_beside_the_daemon_and_what_the_commands_say(practice: Practice, partner_ca: Authority) -> None:
    """F33: the running daemon takes up the new key by itself."""
    inner, _ = deliver(practice, partner_ca, "first\r\n")
    [old] = practice.json("keys", "list")
    assert (old["messages"], old["current"]) == (1, True)
    done = practice.json("keys", "rotate")
    assert (done["made"], done["rewrapped"], done["damaged"]) == (True, 1, [])
    second = inner_message(SENDER, practice.addresses, message_id="<second@phr.example>")
    raw = direct_message(
        STACK, second, sender=SENDER, recipients=practice.addresses, signer=partner_ca.issue(address=SENDER),
        to=[practice.identity()], message_id="<second@phr.example>",
    )  # fmt: skip
    assert practice.send(raw, SENDER, practice.addresses)[0] == 250
    practice.settled(2)
    wait_for(lambda: sorted(practice.inbox()) == sorted([inner, second]), what="both messages")
    refused = practice.run("keys", "retire", done["kek_id"], check=False)
    assert refused.returncode == 1
    assert b"new mail is sealed under the key" in refused.stderr
    assert practice.json("keys", "retire", old["kek_id"]) == {"id": old["kek_id"], "removed": True}
    [line] = practice.json("keys", "list")
    assert (line["kek_id"], line["messages"]) == (done["kek_id"], 2)
    practice.kill()
    practice.start()
    assert sorted(practice.inbox()) == sorted([inner, second])
    assert old["kek_id"] not in Path(practice.directory / "certs/store/bodies.keys").read_text()


def test_the_first_key_of_a_gateway_that_was_set_up_by_hand(tmp_path: Path) -> None:
    practice = Practice.make(tmp_path / "practice")
    for path in (practice.directory / "data").iterdir():
        path.unlink()
    key_file = practice.directory / "certs" / "store" / "bodies.keys"
    before = key_file.read_bytes()
    again = practice.run("keys", "make", check=False)
    assert again.returncode == 2
    assert b"never written over" in again.stderr
    assert key_file.read_bytes() == before
    key_file.unlink()
    made = practice.run("keys", "make")
    assert b"made the key" in made.stdout
    assert b"keep a copy" in made.stderr
    assert key_file.stat().st_mode & 0o777 == 0o600
