"""``user add`` and ``user password``: what a new login sees, and where its password comes from."""

import asyncio
import io
import json
from pathlib import Path

import pytest

from gateway.cli.main import main
from gateway.core.lifecycle import State
from gateway.ports import UnitOfWork
from gateway.services import open_services
from gateway.settings import load
from tests.unit.cli.clinic_harness import DOMAIN, FRONT, LAB, Clinic


def _inbox(clinic: Clinic, login: str) -> tuple[str, list[str]]:
    """Name of the mailbox behind the login's INBOX, and the ids of its messages."""

    async def go() -> tuple[str, list[str]]:
        async with open_services(load(Path(clinic.config), {})) as services:
            account = await services.store.read(lambda tx: tx.accounts.by_login(login))
            assert account is not None
            folders = await services.store.read(lambda tx: tx.accounts.folders(account.id))
            assert [(folder.name, folder.rights) for folder in folders] == [("INBOX", "lrsw"), ("Sent", "lrswi")]
            entries = await services.store.read(lambda tx: tx.mailboxes.entries(folders[0].mailbox_id))
            name = await services.store.read(lambda tx: tx.mailboxes.get(folders[0].mailbox_id).name)
            return name, [entry.message_id for entry in entries]

    return asyncio.run(go())


def test_a_login_for_one_address_sees_that_address_only(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    clinic.add_message(State.FILED, to=(FRONT,))
    lab = clinic.add_message(State.FILED, to=(LAB,))
    assert clinic.run("user", "add", "lab", "--inbox", "lab", "--json") == 0
    added = json.loads(capsys.readouterr().out)
    assert added["inbox"] == [LAB]
    assert added["messages"] == 1
    assert len(added["password"]) == 23
    assert _inbox(clinic, "lab") == (f"Addresses/{LAB}", [lab])


def test_a_login_for_several_addresses_gets_earlier_mail_once_and_in_order(clinic: Clinic) -> None:
    first = clinic.add_message(State.FILED, to=(LAB,))
    both = clinic.add_message(State.FILED, to=(FRONT, LAB))
    last = clinic.add_message(State.FILED, to=(FRONT,))
    clinic.add_message(State.REFUSED, to=(FRONT,))
    assert clinic.run("user", "add", "all", "--inbox", FRONT, "--inbox", LAB.upper()) == 0
    name, messages = _inbox(clinic, "all")
    assert name.startswith("Logins/all/")
    assert messages == [first, both, last]
    later = clinic.add_message(State.FILED, to=(LAB,))
    assert _inbox(clinic, "all")[1] == [first, both, last, later]


def test_a_foreign_address_and_a_known_login_are_misuse(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    assert clinic.run("user", "add", "x", "--inbox", "x@elsewhere.test") == 2
    assert clinic.run("user", "add", "x", "--inbox", "nobody") == 2
    assert clinic.run("user", "add", FRONT, "--inbox", "lab") == 2
    assert f"user password {FRONT}" in capsys.readouterr().err


def test_passwords_are_changed(clinic: Clinic, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = _hash(clinic)
    path = tmp_path / "password"
    path.write_text("a password of my own\n", encoding="utf-8")
    assert clinic.run("user", "password", FRONT, "--password-file", str(path)) == 0
    assert "a password of my own" not in capsys.readouterr().out
    after = _hash(clinic)
    assert after != before
    assert clinic.run("user", "password", FRONT, "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["password"]) == 23
    assert _hash(clinic) != after
    assert clinic.run("user", "password", "nobody") == 1


def _hash(clinic: Clinic) -> str:
    def read(tx: UnitOfWork) -> str:
        account = tx.accounts.by_login(FRONT)
        assert account is not None
        return account.password_hash

    return clinic.write(read)


@pytest.mark.parametrize("text", ["short\n", "", "x" * 300, "tab\tin the password\n"])
def test_weak_or_broken_passwords_are_refused(clinic: Clinic, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert clinic.run("user", "add", "x", "--inbox", "lab", "--password-file", "-") == 2


def test_a_command_makes_no_database(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text(f'[practice]\ndomains = ["{DOMAIN}"]\n', encoding="utf-8")
    assert main(["--config", str(config), "message", "list"]) == 2
    assert "there is no database" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [config]
