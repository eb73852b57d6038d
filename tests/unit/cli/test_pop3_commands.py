"""``pop3 restore``: EP-29, EP-30."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from gateway.core.lifecycle import State
from gateway.ports import UnitOfWork
from gateway.services import open_services
from gateway.settings import load
from tests.unit.cli.clinic_harness import LAB, Clinic


def _hide(clinic: Clinic, login: str, uids: list[int]) -> list[tuple[int, int]]:
    """Hide messages as a POP3 session does at its end; returns what is hidden then."""

    async def go() -> list[tuple[int, int]]:
        async with open_services(load(Path(clinic.config), {})) as services:

            def work(unit: UnitOfWork) -> list[tuple[int, int]]:
                account = unit.accounts.by_login(login)
                assert account is not None
                mailbox = unit.accounts.folders(account.id)[0].mailbox_id
                unit.pop3.hide(account.id, mailbox, uids, services.clock.now())
                return unit.pop3.hidden(account.id, mailbox)

            return await services.store.write(work)

    return asyncio.run(go())


def test_what_was_hidden_is_listed_again(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        clinic.add_message(State.FILED, to=(LAB,))
    assert clinic.run("user", "add", "lab", "--inbox", "lab") == 0
    assert _hide(clinic, "lab", [1, 2]) == [(1, 2)]
    capsys.readouterr()
    assert clinic.run("pop3", "restore", "lab") == 0
    assert "2 messages will be listed to lab over POP3 again" in capsys.readouterr().out
    assert _hide(clinic, "lab", []) == []
    assert clinic.run("pop3", "restore", "lab") == 0
    assert "nothing was hidden from lab" in capsys.readouterr().out
    assert _hide(clinic, "lab", [3]) == [(3, 3)]
    assert clinic.run("pop3", "restore", "LAB", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"user": "LAB", "messages": 1}
    assert clinic.run("audit", "verify") == 0


def test_a_login_that_is_not_there(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    assert clinic.run("pop3", "restore", "nobody") == 1
    assert "there is no account with that login" in capsys.readouterr().err
