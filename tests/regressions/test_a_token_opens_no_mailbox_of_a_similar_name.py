"""To an authority ``strasse`` and ``straße`` may be two people: a token of the one opens no mailbox of the other."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.accounts.token_judge import TokenRefusedError
from tests.support.store_samples import open_store
from tests.support.tokens import token
from tests.unit.accounts.test_app_passwords import PASSWORD, PEER, Office
from tests.unit.accounts.test_tokens import verifier


async def let_in(tmp_path: Path, login: str, claim: str, **more: Any) -> tuple[bool, list[tuple[str, str, str]]]:
    with open_store(tmp_path) as store:
        office = Office.open(store, tmp_path, tokens=verifier())
        try:
            await office.accounts.add(login, PASSWORD, [])
            account = await asyncio.wait_for(
                office.accounts.authenticate_token(token(claim, **more), "", PEER, "imap"), 20
            )
            return account is not None, await office.events("login.failed")
        finally:
            office.accounts.close()


@pytest.mark.parametrize(
    ("login", "claim"),
    [
        ("smith@clinic.example", "\u017fmith@clinic.example"),
        ("strasse@clinic.example", "stra\u00dfe@clinic.example"),
        ("stra\u00dfe@clinic.example", "strasse@clinic.example"),
        ("kim@clinic.example", "\u212aim@clinic.example"),
        ("kim@clinic.example", " kim@clinic.example"),
        ("kim@clinic.example", "kim@clinic.example\u00a0"),
    ],
)
async def test_a_name_that_only_folds_alike_is_another(tmp_path: Path, login: str, claim: str) -> None:
    entered, failed = await let_in(tmp_path, login, claim)
    assert not entered
    assert '"reason":"unknown_login"' in failed[0][2].replace(" ", "")


@pytest.mark.parametrize(
    ("login", "claim"),
    [
        ("kim@clinic.example", "Kim@Clinic.Example"),
        ("Kim@Clinic.example", "kim@clinic.example"),
        ("\u00e9mile@clinic.example", "E\u0301mile@clinic.example"),
    ],
)
async def test_the_same_name_in_another_case_is_the_same(tmp_path: Path, login: str, claim: str) -> None:
    assert (await let_in(tmp_path, login, claim))[0]


@pytest.mark.parametrize("when", ["9999999999", "9" * 40, "2e9", True, float("inf"), float("nan"), [1], {}, ""])
@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
async def test_a_moment_is_a_number(claim: str, when: Any) -> None:
    with pytest.raises(TokenRefusedError):
        await verifier().login_of(token("kim@clinic.example", **{claim: when}))
    assert await verifier().login_of(token("kim@clinic.example", exp=time.time() + 60.5)) == "kim@clinic.example"


@pytest.mark.parametrize("said", [[], {}, ["true"], None, 0, "false", "TRUE"])
async def test_what_is_no_word_for_verified_is_refused_and_written_down(tmp_path: Path, said: Any) -> None:
    claim = "kim@clinic.example"
    # None stands for a claim that is there and null: the helper leaves out what is None.
    entered, failed = await let_in(tmp_path, claim, claim, email_verified=[None] if said is None else said)
    assert not entered
    assert '"reason":"email_not_verified"' in failed[0][2].replace(" ", "")
