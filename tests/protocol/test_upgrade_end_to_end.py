"""A practice with real mail goes from this release to the next one: nothing is lost, altered or numbered anew."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import gateway_process
from tests.support.direct_messages import CryptographyStack, direct_message, inner_message
from tests.support.gateway_process import Practice
from tests.support.next_release import RELEASE, SCHEMA
from tests.support.pki import Authority
from tests.support.postgresql import shared_cluster

SENDER = "jane.doe@phr.example"
THIS_RELEASE = gateway_process.COMMAND
NEXT_RELEASE = [sys.executable, "-m", "tests.support.next_release"]
PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def clinic(request: pytest.FixtureRequest, tmp_path: Path, partner_ca: Authority) -> Iterator[Practice]:
    made = Practice.make(tmp_path / "clinic")
    made.trust(partner_ca.pem)
    if request.param == "postgresql":
        settings = shared_cluster().settings()
        made.use_postgresql(settings.url, settings.schema)
    yield made
    made.kill()


def send(practice: Practice, ca: Authority, number: int, sender: str = SENDER) -> None:
    inner = inner_message(sender, practice.addresses, subject=f"Visit {number}", message_id=f"<m{number}@test.example>")
    raw = direct_message(
        CryptographyStack(), inner, sender=sender, recipients=practice.addresses, signer=ca.issue(address=sender),
        to=[practice.identity(practice.addresses[0])],
    )  # fmt: skip
    assert practice.send(raw, sender, practice.addresses)[0] == 250


def shown(practice: Practice) -> dict[int, bytes]:
    """What IMAP shows, by UID."""
    with practice.imap() as client:
        client.select("INBOX", readonly=True)
        _, answer = client.fetch("1:*", "(UID BODY.PEEK[])")
    found = {}
    for item in answer:
        if isinstance(item, tuple):
            uid = re.search(rb"UID (\d+)", item[0])
            assert uid is not None
            found[int(uid[1])] = item[1]
    return found


def run(command: list[str], practice: Practice, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command, *words, "--config", str(practice.config)], capture_output=True, text=True, check=False, timeout=60,
        cwd=PROJECT,
    )  # fmt: skip


def test_real_mail_goes_through_an_upgrade(
    clinic: Practice, partner_ca: Authority, stranger_ca: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    clinic.start()
    send(clinic, partner_ca, 1)
    send(clinic, partner_ca, 2)
    send(clinic, stranger_ca, 3, "eve@evil.example")
    clinic.settled(3)
    before = shown(clinic)
    assert len(before) == 2
    head = clinic.directory / "head-of-before.json"
    clinic.run("audit", "head", "--out", str(head))

    # The gateway of this release runs: nobody upgrades beneath it, and the next one does not start beside it.
    refused = run(NEXT_RELEASE, clinic, "store", "upgrade")
    assert refused.returncode == 2
    assert "stop" in refused.stderr
    assert shown(clinic) == before
    assert clinic.stop() == 0
    refused = run(NEXT_RELEASE, clinic, "serve")
    assert (refused.returncode, "direct-gateway store upgrade" in refused.stderr) == (2, True), refused.stderr

    plan = run(NEXT_RELEASE, clinic, "store", "upgrade", "--dry-run", "--json")
    [step] = json.loads(plan.stdout)["steps"]
    assert (step["version"], step["rewrites_rows"]) == (SCHEMA, 1)
    done = run(NEXT_RELEASE, clinic, "store", "upgrade")
    assert done.returncode == 0, done.stderr

    # This release is too old now, and says which one is needed, before it opens a port.
    refused = run(THIS_RELEASE, clinic, "serve")
    assert refused.returncode == 2
    assert f"start direct-gateway {RELEASE} or newer" in refused.stderr

    monkeypatch.setattr(gateway_process, "COMMAND", NEXT_RELEASE)
    clinic.start()
    assert shown(clinic) == before
    send(clinic, partner_ca, 4)
    clinic.settled(4)
    after = shown(clinic)
    assert {uid: after[uid] for uid in before} == before
    assert len(after) == 3
    assert min(set(after) - set(before)) > max(before)
    assert clinic.stop() == 0
    verified = clinic.run("audit", "verify", "--against", str(head))
    assert b"the log holds" in verified.stdout
    [event] = clinic.json("audit", "list", "--action", "schema.upgraded")
    assert (event["detail"]["to"], event["detail"]["release"]) == (SCHEMA, RELEASE)
    # The rows that the revision added are answered for like any others.
    assert len(event["rows"]["message_note"]) == 3
