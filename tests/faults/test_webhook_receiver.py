"""F41: the receiver of webhooks is down, slow, answers nonsense or points elsewhere; the daemon is killed meanwhile.

What must hold: every link is told at least once and always under the same id; no request goes where the settings do not
allow; the queue holds one row for each link, however often it was tried; mail goes on at its pace.
"""

from __future__ import annotations

import base64
import contextlib
import json
import sqlite3
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.core.import_settings import ImporterSettings
from gateway.importers import standard_webhooks, webhook
from gateway.importers.conformance import request
from gateway.importers.webhook import WebhookImporter
from gateway.observability.clock import SystemClock
from tests.support.gateway_process import Practice, free_ports, wait_for
from tests.support.pki import Authority, Identity
from tests.support.upstream import SENDER, message
from tests.support.webhook_receiver import Receiver

SECRET = "whsec_" + base64.b64encode(b"of the fault experiments" * 2).decode()
KILLS = 3


def violations(links: Sequence[str], requests: Sequence[dict[str, Any]]) -> list[str]:
    """What contradicts *at least once, always under the same id, and signed*."""
    told = Counter(str(one["headers"]["webhook-id"]) for one in requests)
    found = [f"{link} was never told" for link in links if not told[link]]
    found += [f"{key} is no link" for key in told if key not in links]
    found += [f"{one['headers']['webhook-id']} is not signed" for one in requests if not one["verified_by"]]
    bodies: dict[str, set[str]] = {}
    for one in requests:
        bodies.setdefault(str(one["headers"]["webhook-id"]), set()).add(str(one["body"]))
    return found + [f"{key} was told differently" for key, several in bodies.items() if len(several) > 1]


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    (tmp_path / "receiver").mkdir()
    [port] = free_ports(1)
    made = Receiver(tmp_path / "receiver", port, (SECRET,)).start()
    yield made
    made.kill()


@pytest.fixture
def practice(tmp_path: Path, receiver: Receiver) -> Iterator[Practice]:
    made = Practice.make(tmp_path / "practice")
    (made.directory / "secret").write_text(SECRET)
    (made.directory / "secret").chmod(0o600)
    retries = ", ".join(["1"] * 40)
    with made.config.open("a") as file:
        file.write(
            f'\n[[importer]]\nname = "ehr"\nkind = "webhook"\nurl = "http://127.0.0.1:{receiver.port}/in"\n'
            f'allow = ["127.0.0.1"]\nsecret_files = ["secret"]\nretry_seconds = [{retries}]\ntimeout_seconds = 3\n'
        )
    listing = tmp_path / "patients.csv"
    listing.write_text(f"id,family,given,direct_address\np-1,Lee,Ann,{SENDER}\n")
    made.run("patient", "import", str(listing))
    yield made
    made.kill()


@pytest.fixture
def signer(practice: Practice) -> Identity:
    authority = Authority.root("Partner CA")
    practice.trust(authority.pem)
    return authority.issue(address=SENDER)


def send(practice: Practice, signer: Identity, numbers: range) -> None:
    for number in numbers:
        _, raw = message(practice, signer, number)
        assert practice.send(raw, SENDER, practice.addresses)[0] == 250


def ask(practice: Practice, query: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(practice.directory / "data" / "gateway.db", timeout=30)) as database:
        return [row[0] for row in database.execute(query)]


def links(practice: Practice) -> list[str]:
    return ask(practice, "SELECT id FROM link")


def acked(practice: Practice, target: str = "ehr") -> list[str]:
    return ask(practice, f"SELECT link_id FROM link_receipt WHERE importer = '{target}'")  # noqa: S608 - our own names


def await_request(receiver: Receiver, before: int) -> None:
    wait_for(lambda: len(receiver.requests()) > before, what="a request")


def await_folder(practice: Practice, count: int) -> None:
    wait_for(lambda: len(acked(practice, "folder")) == count, what="the folder")


def test_the_harness_sees_a_loss_a_stranger_and_a_change() -> None:
    def told(key: str, body: str = "x", *, signed: bool = True) -> dict[str, Any]:
        return {"headers": {"webhook-id": key}, "body": body, "verified_by": [SECRET] if signed else []}

    assert violations(["a"], [told("a"), told("a")]) == []
    assert violations(["a", "b"], [told("a")]) == ["b was never told"]
    assert violations(["a"], [told("a"), told("c")]) == ["c is no link"]
    assert violations(["a"], [told("a", signed=False)]) == ["a is not signed"]
    assert violations(["a"], [told("a"), told("a", "y")]) == ["a was told differently"]


def test_f41_killed_between_the_request_and_the_receipt(
    practice: Practice, receiver: Receiver, signer: Identity, report: Callable[[str], None]
) -> None:
    for number in range(KILLS):
        receiver.behave("slow", "2.5")
        practice.start()
        before = len(receiver.requests())
        send(practice, signer, range(number, number + 1))
        await_request(receiver, before)
        # The receiver has it and has not answered: the worst moment.
        practice.kill()
    receiver.behave()
    practice.start()
    wait_for(lambda: len(acked(practice)) == KILLS, what="every receipt")
    requests = receiver.requests()
    assert violations(links(practice), requests) == []
    assert len(links(practice)) == KILLS
    assert len(requests) > KILLS, "the kills came too late to make a repetition"
    wait_for(lambda: ask(practice, "SELECT count(*) FROM import_delivery") == [0], what="empty queues")
    report(f"F41 (killed): points={KILLS} lost=0 requests={len(requests)} links={KILLS}")


@pytest.mark.slow
def test_f41_a_receiver_that_is_down_slow_and_wrong(
    practice: Practice, receiver: Receiver, signer: Identity, tmp_path: Path, report: Callable[[str], None]
) -> None:
    (tmp_path / "inside").mkdir()
    [port] = free_ports(1)
    inside = Receiver(tmp_path / "inside", port, (SECRET,)).start()
    faults = [
        ["hang"],
        ["status", "503", "1"],
        ["status", "429", "1"],
        ["drop"],
        ["half"],
        ["redirect", f"http://127.0.0.1:{port}/latest/meta-data/"],
    ]
    try:
        practice.start()
        for number, fault in enumerate(faults):
            receiver.behave(*fault)
            before = len(receiver.requests())
            send(practice, signer, range(number, number + 1))
            # Mail, and the folder beside it, do not wait for it.
            await_folder(practice, number + 1)
            await_request(receiver, before)
        receiver.kill()
        send(practice, signer, range(len(faults), len(faults) + 2))
        count = len(faults) + 2
        wait_for(lambda: len(acked(practice, "folder")) == count, what="the folder while the receiver is down")
        assert acked(practice) == []
        assert ask(practice, "SELECT count(*) FROM import_delivery WHERE target = 'ehr'") == [count], "one row a link"
        listed = json.loads(practice.run("import", "list", "--target", "ehr", "--json").stdout)
        assert {one["state"] for one in listed["deliveries"]} == {"waiting"}
        receiver.behave()
        receiver.start()
        wait_for(lambda: len(acked(practice)) == count, timeout=90, what="every receipt")
        assert violations(links(practice), receiver.requests()) == []
        assert inside.requests() == [], "no redirect was followed"
        report(f"F41 (faults): points={len(faults) + 1} lost=0 requests={len(receiver.requests())} links={count}")
    finally:
        inside.kill()


def test_f41_410_stops_the_target_until_a_person_starts_it(
    practice: Practice, receiver: Receiver, signer: Identity
) -> None:
    receiver.behave("status", "410")
    practice.start()
    send(practice, signer, range(1))
    wait_for(lambda: ask(practice, "SELECT count(*) FROM import_target") == [1], what="the stop")
    send(practice, signer, range(1, 3))
    wait_for(lambda: len(acked(practice, "folder")) == 3, what="the folder")
    assert len(receiver.requests()) == 1
    assert practice.run("import", "list", check=False).returncode == 1
    receiver.behave()
    practice.run("import", "retry", "--target", "ehr")
    wait_for(lambda: len(acked(practice)) == 3, what="every receipt")
    assert violations(links(practice), receiver.requests()) == []


async def test_f41_finds_an_id_that_changes(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seeded bug: a webhook-id of its own for each attempt."""
    (tmp_path / "secret").write_text(SECRET)
    url = f"http://127.0.0.1:{receiver.port}/"
    secrets = (str(tmp_path / "secret"),)
    settings = ImporterSettings(name="ehr", kind="webhook", url=url, allow=("127.0.0.1",), secret_files=secrets)
    asked = request()
    importer = WebhookImporter(settings, SystemClock())
    await importer.import_message(asked)
    assert violations([asked.link.id], receiver.requests()) == []
    signed = standard_webhooks.headers
    monkeypatch.setattr(webhook, "headers", lambda _key, *rest: signed(uuid.uuid4().hex, *rest))
    await importer.import_message(asked)
    assert violations([asked.link.id], receiver.requests()) != []
