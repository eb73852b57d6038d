"""``init`` makes a working practice, touches no other, and can be begun anew after a crash."""

import asyncio
import fcntl
import json
import os
import shlex
import socket
import ssl
import stat
import subprocess
from pathlib import Path

import pytest

from gateway.accounts.passwords import generate_password
from gateway.agents import build_agent
from gateway.cli import init_practice
from gateway.cli.commands_init import running_program
from gateway.cli.development_keys import file_name
from gateway.cli.init_practice import STAGING, Ports, make_practice, plan_practice, port_beside
from gateway.cli.main import main
from gateway.core.errors import ConflictError, InputError
from gateway.daemon import tls_context
from gateway.keys.loading import load_key_ring
from gateway.ports import Folder
from gateway.services import open_services
from gateway.settings import load

DOMAIN = "direct.clinic.test"
PORTS = Ports(2600, 1200, 2050, 8100, 1600)


def test_everything_is_made_and_fits_together(practice_template: Path) -> None:
    settings = load(practice_template / "gateway.toml", {})
    assert settings.practice.domains == (DOMAIN,)
    assert settings.practice.addresses == (f"front-desk@{DOMAIN}", f"lab@{DOMAIN}")
    assert load_key_ring(settings.trust.identities_dir, None).names() == frozenset(settings.practice.addresses)
    build_agent(settings.trust)
    tls_context(settings)
    certs = practice_template / "certs"
    assert (certs / "anchors" / "development-ca.cert.pem").read_bytes() == (certs / "ca" / "ca.cert.pem").read_bytes()
    assert b"X509 CRL" in (certs / "crls" / "development-ca.crl.pem").read_bytes()
    assert not (practice_template / STAGING).exists()
    # The TLS authority is another one, and its certificate verifies the listeners' one.
    assert (certs / "tls" / "ca.pem").read_bytes() != (certs / "ca" / "ca.cert.pem").read_bytes()
    ssl.create_default_context(cafile=str(certs / "tls" / "ca.pem"))


def test_nobody_else_can_read_it(practice_template: Path) -> None:
    for path in [practice_template, *practice_template.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_the_login_sees_the_shared_inbox_and_each_address(practice_template: Path) -> None:
    async def folders() -> tuple[list[Folder], dict[str, list[int]]]:
        settings = load(practice_template / "gateway.toml", {})
        async with open_services(settings) as services:
            account = await services.store.read(lambda tx: tx.accounts.by_login(f"front-desk@{DOMAIN}"))
            assert account is not None
            assert "$argon2" in account.password_hash
            routes = await services.store.read(
                lambda tx: {a: tx.mailboxes.for_recipient(a) for a in settings.practice.addresses}
            )
            return await services.store.read(lambda tx: tx.accounts.folders(account.id)), routes

    found, routes = asyncio.run(folders())
    by_name = {folder.name: folder for folder in found}
    assert set(by_name) == {"INBOX", f"Addresses/front-desk@{DOMAIN}", f"Addresses/lab@{DOMAIN}", "Sent"}
    assert {folder.name: folder.rights for folder in found} == dict.fromkeys(by_name, "lrsw") | {"Sent": "lrswi"}
    for address, mailboxes in routes.items():
        assert sorted(mailboxes) == sorted([by_name["INBOX"].mailbox_id, by_name[f"Addresses/{address}"].mailbox_id])


def test_what_is_printed_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "new clinic"
    words = ["init", str(directory), "--domain", DOMAIN, "--address", "a", "b", "--login", "desk", "--bind", "domain"]
    assert main([*words, "--imap-port", "20143", "--smtp-port", "20025"]) == 0
    text = capsys.readouterr().out
    login = (directory / "imap-login.txt").read_text(encoding="utf-8")
    password = next(line.split()[-1] for line in login.splitlines() if line.startswith("password:"))
    assert text.count(password) == 1
    steps = ("direct-gateway serve --config", "patient import", "bundle add", "quarantine list", "message list")
    for wanted in ("user:     desk", "20143 (STARTTLS)", "anchors", *steps):
        assert wanted in text
    assert f"copy '{directory}'/certs/ to a safe, apart from the backups" in text
    assert "backup create FOLDER/" in text
    settings = load(directory / "gateway.toml", {})
    assert (settings.smtp.port, settings.imap.port) == (20025, 20143)
    assert settings.imap.tls_port != 1993, "a second practice on one machine must not collide with the first"
    assert load_key_ring(settings.trust.identities_dir, None).names() == {DOMAIN}
    assert password not in (directory / "gateway.toml").read_text(encoding="utf-8")


def _steps(text: str) -> list[list[str]]:
    return [shlex.split(line) for line in text.splitlines() if "--config" in line]


def test_the_commands_that_are_printed_work_without_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    folder = tmp_path / "a place"
    folder.mkdir()
    program = folder / "direct-gateway"
    program.write_text("")
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["./direct-gateway", "init"])
    assert main(["init", str(tmp_path / "one"), "--domain", DOMAIN, "--address", "a"]) == 0
    lines = _steps(capsys.readouterr().out)
    assert len(lines) == 7
    assert all(str(program) in words for words in lines)


def test_a_printed_command_really_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    assert main(["init", str(tmp_path / "one"), "--domain", DOMAIN, "--address", "a"]) == 0
    words = next(words for words in _steps(capsys.readouterr().out) if words[-2:] == ["message", "list"])
    command = words[next(n for n, word in enumerate(words) if word.startswith("/")) :]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "no messages\n"), done.stderr


def test_a_program_on_the_path_is_called_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "direct-gateway"
    program.write_text("")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert running_program() == "direct-gateway"


def test_json_names_everything_a_script_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(tmp_path / "c"), "--domain", DOMAIN, "--address", "a", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["addresses"] == [f"a@{DOMAIN}"]
    assert made["ports"] == {"smtp": 2525, "imap": 1143, "imaps": 1993, "http": 8080, "submission": 1587}
    assert made["imap"]["user"] == f"a@{DOMAIN}"
    assert len(made["imap"]["password"]) == 23
    for path in (made["config"], made["imap"]["ca_file"], made["imap"]["password_file"], made["ca"], made["anchor"]):
        assert Path(path).is_file(), path
    assert all(Path(path).is_file() for path in made["identities"])


def test_a_practice_is_never_touched(practice_template: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = _state(practice_template)
    assert main(["init", str(practice_template), "--domain", "other.test", "--address", "x"]) == 1
    assert "is a practice already" in capsys.readouterr().err
    assert _state(practice_template) == before


def test_a_folder_with_keys_of_its_own_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs" / "mine.pem").write_text("mine")
    assert main(["init", str(tmp_path), "--domain", DOMAIN, "--address", "a"]) == 1
    assert _state(tmp_path) == {"certs": None, "certs/mine.pem": b"mine"}


def test_other_files_in_the_folder_stay(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["init", str(tmp_path), "--domain", DOMAIN, "--address", "a"]) == 0
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / "gateway.toml").is_file()


@pytest.mark.parametrize("moved", [(), ("data",), ("data", "certs"), ("data", "certs", "imap-login.txt")])
def test_a_crash_at_any_move_leaves_what_init_can_make_again(
    tmp_path: Path, practice_template: Path, moved: tuple[str, ...]
) -> None:
    directory = tmp_path / "c"
    (directory / STAGING).mkdir(parents=True)
    for name in ("data", "certs"):
        place = directory if name in moved else directory / STAGING
        (place / name).mkdir()
        (place / name / "left-over").write_text("old")
    if "imap-login.txt" in moved:
        (directory / "imap-login.txt").write_text("old")
    assert main(["init", str(directory), "--domain", DOMAIN, "--address", "front-desk", "lab"]) == 0
    # The WAL files of SQLite and its lock may be there or not.
    made = {name for name in _state(directory) if not name.startswith("data/")}
    assert made == {name for name in _state(practice_template) if not name.startswith("data/")}
    assert not (directory / "data" / "left-over").exists()


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(init_practice, "write_tls", fail)
    assert main(["init", str(tmp_path / "c"), "--domain", DOMAIN, "--address", "a"]) == 3
    assert list(tmp_path.iterdir()) == []


def test_two_at_once_do_not_mix(tmp_path: Path) -> None:
    plan = plan_practice(tmp_path, DOMAIN, ["a"], PORTS)
    handle = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(ConflictError, match="another init"):
            asyncio.run(make_practice(plan))
    finally:
        os.close(handle)
    assert list(tmp_path.iterdir()) == []


def test_addresses_may_be_given_either_way_and_are_normalised(tmp_path: Path) -> None:
    plan = plan_practice(tmp_path, "Direct.Clinic.TEST", ["Front-Desk", f"LAB@{DOMAIN}", "front-desk"], PORTS)
    assert plan.addresses == (f"front-desk@{DOMAIN}", f"lab@{DOMAIN}")
    assert plan.login == f"front-desk@{DOMAIN}"


@pytest.mark.parametrize(
    "words",
    [
        ["--domain", "localhost", "--address", "a"],
        ["--domain", "*.clinic.test", "--address", "a"],
        ["--domain", DOMAIN, "--address", "a@elsewhere.test"],
        ["--domain", DOMAIN, "--address", "a b"],
        ["--domain", DOMAIN, "--address", "a", "--smtp-port", "70000"],
        ["--domain", DOMAIN, "--address", "a", "--smtp-port", "1143"],
        ["--domain", DOMAIN, "--address", "a", "--login", "two words"],
        ["--domain", DOMAIN, "--address", "a", "--host", "not a host"],
    ],
)
def test_wrong_values_are_misuse_and_make_nothing(tmp_path: Path, words: list[str]) -> None:
    assert main(["init", str(tmp_path / "c"), *words]) == 2
    assert not (tmp_path / "c").exists()


def test_an_address_never_becomes_a_path() -> None:
    for identity in ("a/../../b@clinic.test", "x" * 64 + "@" + "d" * 60 + ".test", "\u00fc" * 60 + "@clinic.test"):
        name = file_name(identity)
        assert "/" not in name
        assert len(name.encode()) <= 200
    assert file_name("a+b.c@clinic.test") == "a+b.c@clinic.test"
    assert file_name("x" * 300) != file_name("x" * 301)


def test_the_second_imap_port_keeps_clear_of_the_others() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = taken.getsockname()[1]
        imap = busy - 850
        chosen = port_beside(imap, {busy + 1}, "127.0.0.1")
        assert chosen not in {busy, busy + 1, imap}
    assert port_beside(1143, set(), "127.0.0.1") == 1993


def test_ports_are_checked() -> None:
    with pytest.raises(InputError, match="both 25"):
        Ports(25, 25, 1, 2, 3)
    assert Ports(25, 0, 0, 0, 0).imap == 0


def test_passwords_differ_and_can_be_read_aloud() -> None:
    passwords = {generate_password() for _ in range(50)}
    assert len(passwords) == 50
    assert all(set(password) <= set("23456789abcdefghjkmnpqrstuvwxyz-") for password in passwords)


def _state(directory: Path) -> dict[str, bytes | None]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(directory.rglob("*"))
    }
