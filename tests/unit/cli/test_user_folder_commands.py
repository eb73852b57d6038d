"""``user add --share-inbox``, ``user grant``, ``user revoke``, ``user folders``: who may read which folder."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from gateway.cli.right_sets import parse_rights
from gateway.core.audit import AuditQuery
from gateway.core.errors import InputError
from gateway.core.lifecycle import State
from gateway.ports import Folder, UnitOfWork
from gateway.services import open_services
from gateway.settings import load
from tests.unit.cli.clinic_harness import DOMAIN, FRONT, LAB, Clinic

OTHER = f"billing@{DOMAIN}"
T = TypeVar("T")


def folders_of(clinic: Clinic, login: str) -> dict[str, tuple[str, str]]:
    """Mailbox and rights by folder."""

    def work(tx: UnitOfWork) -> dict[str, tuple[str, str]]:
        account = tx.accounts.by_login(login)
        assert account is not None
        found: list[Folder] = tx.accounts.folders(account.id)
        return {one.name: (tx.mailboxes.get(one.mailbox_id).name, one.rights) for one in found}

    return _read(clinic, work)


def actions(clinic: Clinic, action: str) -> list[dict[str, Any]]:
    def work(tx: UnitOfWork) -> list[dict[str, Any]]:
        return [json.loads(event.detail) for event in tx.audit.find(AuditQuery(action=action, ascending=True))]

    return _read(clinic, work)


def _read(clinic: Clinic, work: Callable[[UnitOfWork], T]) -> T:
    async def go() -> T:
        async with open_services(load(Path(clinic.config), {})) as services:
            return await services.store.read(work)

    return asyncio.run(go())


def error(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err


# --- rights ---


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("reader", "lr"),
        ("clinician", "lrsw"),
        ("operator", "lrswa"),
        ("lrs", "lrs"),
        ("WRL", "lrw"),
        (" lr ", "lr"),
        ("llrr", "lr"),
    ],
)
def test_rights_by_name_or_letters(text: str, letters: str) -> None:
    assert parse_rights(text) == letters


@pytest.mark.parametrize("text", ["", "nobody", "lrx", "s", "l", "r", "sw", "lr t", "lrsi"])
def test_rights_that_mean_nothing_are_misuse(text: str) -> None:
    with pytest.raises(InputError, match="--rights"):
        parse_rights(text)


def test_putting_in_is_for_sent() -> None:
    assert parse_rights("lrswi", sent=True) == "lrswi"


# --- the shared inbox ---


def test_a_login_shares_the_inbox_of_the_practice(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    clinic.add_message(State.FILED)
    assert clinic.run("user", "add", "temp", "--share-inbox", "--rights", "lrs", "--json") == 0
    added = json.loads(capsys.readouterr().out)
    assert (added["inbox"], added["rights"], added["messages"]) == ("INBOX", "lrs", 1)
    assert folders_of(clinic, "temp") == {"INBOX": ("INBOX", "lrs"), "Sent": ("Sent/INBOX", "lrsi")}


def test_a_reader_reads_what_was_sent_and_puts_nothing_there(clinic: Clinic) -> None:
    assert clinic.run("user", "add", "temp", "--share-inbox", "--rights", "reader") == 0
    assert folders_of(clinic, "temp") == {"INBOX": ("INBOX", "lr"), "Sent": ("Sent/INBOX", "lr")}


def test_without_rights_it_is_a_clinician_and_the_first_login_sees_the_same_sent(clinic: Clinic) -> None:
    assert clinic.run("user", "add", "temp", "--share-inbox") == 0
    assert folders_of(clinic, "temp") == {"INBOX": ("INBOX", "lrsw"), "Sent": ("Sent/INBOX", "lrswi")}
    assert folders_of(clinic, FRONT)["Sent"] == ("Sent/INBOX", "lrswi")


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--inbox", "lab", "--share-inbox"),
        ("--inbox", "lab", "--rights", "lr"),
        ("--share-inbox", "--rights", "lrswi"),
        ("--share-inbox", "--rights", "boss"),
    ],
)
def test_what_does_not_go_together_is_misuse(clinic: Clinic, words: tuple[str, ...]) -> None:
    try:
        status = clinic.run("user", "add", "temp", *words)
    except SystemExit as ended:
        status = int(ended.code or 0)
    assert status == 2


# --- grants ---


def test_a_folder_of_an_address_is_granted_changed_and_taken_away(
    clinic: Clinic, capsys: pytest.CaptureFixture[str]
) -> None:
    clinic.run("user", "add", "temp", "--share-inbox")
    assert clinic.run("user", "grant", "temp", "Lab results", "--of", LAB.upper(), "--rights", "reader") == 0
    assert "rights lr on Lab results" in capsys.readouterr().out
    assert folders_of(clinic, "temp")["Lab results"] == (f"Addresses/{LAB}", "lr")
    assert clinic.run("user", "grant", "temp", "Lab results", "--of", LAB, "--rights", "operator") == 0
    assert folders_of(clinic, "temp")["Lab results"][1] == "lrswa"
    assert clinic.run("user", "revoke", "temp", "Lab results") == 0
    assert set(folders_of(clinic, "temp")) == {"INBOX", "Sent"}
    granted, revoked = actions(clinic, "user.granted"), actions(clinic, "user.revoked")
    assert [one["rights"] for one in granted] == ["lr", "lrswa"]
    assert len(revoked) == 1
    assert not any("temp" in str(one) or "@" in str(one) for one in granted + revoked)


def test_with_the_inbox_goes_its_sent_and_comes_back(clinic: Clinic) -> None:
    clinic.run("user", "add", "temp", "--share-inbox")
    assert clinic.run("user", "revoke", "temp", "inbox") == 0
    assert folders_of(clinic, "temp") == {}
    assert clinic.run("user", "grant", "temp", "INBOX", "--of", "inbox", "--rights", "reader") == 0
    assert folders_of(clinic, "temp") == {"INBOX": ("INBOX", "lr"), "Sent": ("Sent/INBOX", "lr")}


def test_sent_stays_while_another_folder_shows_the_same_inbox(clinic: Clinic) -> None:
    clinic.run("user", "add", "temp", "--share-inbox")
    clinic.run("user", "grant", "temp", "Practice", "--of", "INBOX")
    assert clinic.run("user", "revoke", "temp", "INBOX") == 0
    assert set(folders_of(clinic, "temp")) == {"Practice", "Sent"}


def test_what_was_sent_from_elsewhere_can_be_shown_under_a_name(clinic: Clinic) -> None:
    clinic.run("user", "add", "temp", "--share-inbox")
    words = ("user", "grant", "temp", "Lab/Outgoing", "--of", LAB, "--sent", "--rights", "lri")
    assert clinic.run(*words) == 0
    assert folders_of(clinic, "temp")["Lab/Outgoing"] == (f"Sent/Addresses/{LAB}", "lri")


def test_a_folder_never_comes_to_show_another_mailbox_by_itself(
    clinic: Clinic, capsys: pytest.CaptureFixture[str]
) -> None:
    clinic.run("user", "add", "temp", "--share-inbox")
    capsys.readouterr()
    assert clinic.run("user", "grant", "temp", "INBOX", "--of", LAB) == 1
    assert "user revoke temp INBOX" in error(capsys)
    clinic.run("user", "revoke", "temp", "INBOX")
    assert clinic.run("user", "grant", "temp", "INBOX", "--of", LAB) == 0
    assert folders_of(clinic, "temp")["INBOX"][0] == f"Addresses/{LAB}"


def test_mailboxes_made_in_one_second_have_uidvalidities_of_their_own(clinic: Clinic) -> None:
    def work(tx: UnitOfWork) -> list[int]:
        return [tx.mailboxes.get(number).uid_validity for number in range(1, 4)]

    assert len(set(_read(clinic, work))) == 3


@pytest.mark.parametrize(
    "name",
    ["", "/x", "x/", "a//b", " x", "x ", "a*", "50%", "a\\b", "line\nfeed", "x" * 201, "Linked", "Lab/unlinked"],
)
def test_names_that_no_client_could_show_or_the_gateway_gives_are_misuse(clinic: Clinic, name: str) -> None:
    clinic.run("user", "add", "temp", "--share-inbox")
    assert clinic.run("user", "grant", "temp", name, "--of", LAB) == 2
    assert set(folders_of(clinic, "temp")) == {"INBOX", "Sent"}


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (("grant", "nobody", "Lab", "--of", LAB), 1, "user add nobody"),
        (("grant", FRONT, "Lab", "--of", OTHER), 2, LAB),
        (("grant", FRONT, "Lab", "--of", "lab"), 2, "not a Direct address"),
        (("revoke", FRONT, "Nowhere"), 1, "its folders: "),
        (("revoke", "nobody", "INBOX"), 1, "user add nobody"),
        (("folders", "nobody"), 1, "user add nobody"),
    ],
)
def test_what_is_not_there_is_told(
    clinic: Clinic, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], status: int, told: str
) -> None:
    assert clinic.run("user", *words) == status
    assert told in error(capsys)


def test_the_folders_of_a_login_are_shown(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    clinic.run("user", "add", "temp", "--share-inbox", "--rights", "reader")
    capsys.readouterr()
    assert clinic.run("user", "folders", "temp", "--json") == 0
    assert json.loads(capsys.readouterr().out) == [
        {"folder": "INBOX", "rights": "lr", "mailbox": "INBOX"},
        {"folder": "Sent", "rights": "lr", "mailbox": "Sent/INBOX"},
    ]
    assert len(actions(clinic, "user.folders")) == 1
    clinic.run("user", "revoke", "temp", "INBOX")
    assert clinic.run("user", "folders", "temp") == 0
    assert "sees no folder" in capsys.readouterr().out


# --- the quarantine ---


def test_an_operator_is_given_the_reports_about_refused_messages(
    clinic: Clinic, capsys: pytest.CaptureFixture[str]
) -> None:
    clinic.add_message(State.REFUSED)
    clinic.run("user", "add", "it.desk", "--share-inbox")
    assert clinic.run("user", "grant", "it.desk", "quarantine") == 0
    assert "Quarantine" in capsys.readouterr().out
    assert folders_of(clinic, "it.desk")["Quarantine"] == ("Quarantine", "lr")
    assert "Quarantine" not in folders_of(clinic, FRONT)

    def entries(tx: UnitOfWork) -> int:
        return len(tx.quarantine_folder.entries())

    assert _read(clinic, entries) == 1
    assert clinic.run("user", "revoke", "it.desk", "Quarantine") == 0
    assert "Quarantine" not in folders_of(clinic, "it.desk")
    assert clinic.run("audit", "verify") == 0


@pytest.mark.parametrize("words", [("--of", "INBOX"), ("--rights", "clinician"), ("--sent",)])
def test_the_quarantine_is_to_be_read_only(clinic: Clinic, words: tuple[str, ...]) -> None:
    assert clinic.run("user", "grant", FRONT, "Quarantine", *words) == 2


def test_any_other_folder_needs_a_mailbox(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    assert clinic.run("user", "grant", FRONT, "Lab") == 2
    assert "--of" in error(capsys)
