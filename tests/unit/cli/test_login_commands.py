"""``user list``, ``disable``, ``enable``, ``app-password`` and ``session``: what they do, print and refuse."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from gateway.services import Services, open_services
from gateway.settings import load
from tests.support.tokens import AUDIENCE, ISSUER, key_set
from tests.unit.cli.clinic_harness import FRONT, Clinic

T = TypeVar("T")


def with_clinic(clinic: Clinic, work: Callable[[Services], Awaitable[T]]) -> T:
    async def go() -> T:
        async with open_services(load(Path(clinic.config), {})) as services:
            return await work(services)

    return asyncio.run(go())


def log_in(clinic: Clinic, secret: str, login: str = FRONT) -> str | None:
    """As the daemon does it; returns the id of the session."""

    async def work(services: Services) -> str | None:
        account = await services.accounts.authenticate(login, secret, "192.0.2.7")
        return None if account is None else account.session_id

    return with_clinic(clinic, work)


def printed(clinic: Clinic, capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    capsys.readouterr()
    assert clinic.run(*words, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_app_passwords_are_made_listed_and_taken_back(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("user", "app-password")
    assert clinic.run(*words, "list", FRONT) == 0
    assert "has no app password" in capsys.readouterr().out
    made = printed(clinic, capsys, *words, "add", FRONT, "--name", "Outlook in room 2")
    assert (made["id"], made["name"], len(made["password"])) == (1, "Outlook in room 2", 34)
    assert clinic.run(*words, "add", FRONT, "--name", "telephone") == 0
    told = capsys.readouterr()
    assert told.out.startswith(f"app password 2 of {FRONT}: ")
    assert "kept nowhere" in told.err
    assert log_in(clinic, made["password"])
    listed = printed(clinic, capsys, *words, "list", FRONT)
    assert [(one["id"], one["name"], bool(one["used_at"])) for one in listed] == [
        (1, "Outlook in room 2", True),
        (2, "telephone", False),
    ]
    assert clinic.run(*words, "list", FRONT) == 0
    table = capsys.readouterr().out
    assert table.splitlines()[0].split() == ["ID", "NAME", "MADE", "LAST", "USED"]
    assert made["password"] not in table
    assert clinic.run(*words, "revoke", FRONT, "1") == 0
    out = capsys.readouterr().out
    assert f"app password 1 (Outlook in room 2) of {FRONT} was taken back; 1 session of it" in out
    assert log_in(clinic, made["password"]) is None
    assert clinic.run(*words, "revoke", FRONT, "1") == 1
    assert f"user app-password list {FRONT}" in capsys.readouterr().err
    assert clinic.run(*words, "add", "nobody", "--name", "x") == 1
    assert "user list" in capsys.readouterr().err
    assert clinic.run(*words, "add", FRONT, "--name", " ") == 2
    assert clinic.run(*words, "add", FRONT, "--name", "TELEPHONE") == 1


def test_logins_are_listed_disabled_and_enabled(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    password = printed(clinic, capsys, "user", "password", FRONT)["password"]
    [before] = printed(clinic, capsys, "user", "list")
    assert (before["user"], before["enabled"], before["last_login"], before["sessions"]) == (FRONT, True, None, 0)
    assert "INBOX" in {folder["name"] for folder in before["folders"]}
    assert log_in(clinic, password)
    assert clinic.run("user", "disable", FRONT, "--reason", "left the practice") == 0
    assert f"{FRONT} is disabled; 1 session of it: they end within seconds" in capsys.readouterr().out
    assert log_in(clinic, password) is None
    assert clinic.run("user", "list") == 0
    told = capsys.readouterr()
    assert told.out.splitlines()[1].split()[:2] == [FRONT, "disabled"]
    assert "left the practice" in told.err
    assert clinic.run("user", "disable", FRONT, "--reason", "again") == 1
    assert clinic.run("user", "enable", FRONT) == 0
    assert clinic.run("user", "enable", FRONT) == 1
    assert log_in(clinic, password)
    assert clinic.run("user", "disable", "nobody", "--reason", "x") == 1
    assert clinic.run("user", "disable", FRONT, "--reason", "  ") == 2
    with pytest.raises(SystemExit):
        clinic.run("user", "disable", FRONT)


def test_a_new_password_ends_the_sessions_unless_they_are_kept(
    clinic: Clinic, capsys: pytest.CaptureFixture[str]
) -> None:
    first = printed(clinic, capsys, "user", "password", FRONT)
    assert first["sessions_ended"] == 0
    assert log_in(clinic, first["password"])
    second = printed(clinic, capsys, "user", "password", FRONT, "--keep-sessions")
    assert second["sessions_ended"] == 0
    assert log_in(clinic, second["password"])
    assert clinic.run("user", "password", FRONT) == 0
    assert f"the password of {FRONT} was changed; 2 sessions of it" in capsys.readouterr().out


def test_sessions_are_listed_and_ended(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    assert clinic.run("session", "list") == 0
    assert "nobody is logged in" in capsys.readouterr().out
    password = printed(clinic, capsys, "user", "password", FRONT)["password"]
    one, other = (log_in(clinic, password) for _ in range(2))
    assert one
    assert other
    listed = printed(clinic, capsys, "session", "list", "--user", FRONT.upper())
    # No daemon runs here, so nobody answers for them.
    assert {item["id"]: item["state"] for item in listed} == dict.fromkeys((one, other), "node not heard of")
    assert printed(clinic, capsys, "session", "list", "--user", "nobody") == []
    assert clinic.run("session", "end", one, "--reason", "lost telephone") == 0
    told = capsys.readouterr()
    assert "1 session: they end" in told.out
    assert "node main does not run" in told.err
    asked = {item["id"]: item["end_asked_by"] for item in printed(clinic, capsys, "session", "list")}
    assert asked[one].startswith("cli:")
    assert asked[other] == ""
    assert clinic.run("session", "list") == 0
    assert capsys.readouterr().out.splitlines()[0].split()[:3] == ["ID", "LOGIN", "PROTOCOL"]
    assert len(printed(clinic, capsys, "session", "end", "--user", FRONT)) == 2
    for words in (["session", "end"], ["session", "end", one, "--user", FRONT]):
        assert clinic.run(*words) == 2
    assert clinic.run("session", "end", "0123456789ab") == 1
    assert "session list" in capsys.readouterr().err
    assert clinic.run("session", "end", "--user", "nobody") == 1


def test_keys_of_an_authority_that_cannot_be_read_are_found_before_the_start(
    clinic: Clinic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = tmp_path / "keys.json"
    for name, value in (("ISSUER", ISSUER), ("AUDIENCE", AUDIENCE), ("JWKS_FILE", str(keys))):
        monkeypatch.setenv(f"DIRECTGW__OAUTH__{name}", value)
    assert clinic.run("config", "check") == 2
    assert f"oauth.jwks_file: {keys} cannot be read" in capsys.readouterr().err
    assert clinic.run("serve") == 2
    assert f"oauth.jwks_file: {keys} cannot be read" in capsys.readouterr().err
    keys.write_bytes(key_set())
    keys.chmod(0o666)
    assert clinic.run("config", "check") == 0
    assert f"chmod go-w {keys}" in capsys.readouterr().err
    keys.chmod(0o600)
    assert clinic.run("config", "check") == 0
    assert "oauth" not in capsys.readouterr().err
    monkeypatch.setenv("DIRECTGW__OAUTH__AUDIENCE", "")
    assert clinic.run("config", "check") == 2
    assert "oauth.audience" in capsys.readouterr().err
