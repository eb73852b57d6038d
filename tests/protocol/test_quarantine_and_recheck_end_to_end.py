"""The quarantine as a workplace, and judging again, with the real daemon: repair, SIGHUP, retry, recheck (AS-60)."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.main import main
from gateway.observability.clock import SystemClock
from tests.support.direct_messages import CryptographyStack, direct_message, inner_message
from tests.support.gateway_process import Practice, wait_for
from tests.support.pki import Authority, Identity

SENDER = "dr.ok@partner.example"
STACK = CryptographyStack()


def deliver(
    practice: Practice,
    signer: Identity,
    *,
    number: int,
    to: Sequence[str] = (),
    keys: Sequence[Identity] = (),
) -> bytes:
    """Send one message; returns the inner message."""
    recipients = list(to) or [practice.addresses[0]]
    inner = inner_message(SENDER, recipients, message_id=f"<m{number}@partner.example>")
    raw = direct_message(
        STACK, inner, sender=SENDER, recipients=recipients, signer=signer,
        to=list(keys) or [practice.identity(one) for one in recipients],
    )  # fmt: skip
    assert practice.send(raw, SENDER, recipients)[0] == 250
    practice.settled(number)
    return inner


def reload(practice: Practice) -> None:
    """SIGHUP, and wait until the daemon says that it has read everything again."""
    before = practice.log.read_text().count("trust_reloaded")
    assert practice.process is not None
    os.kill(practice.process.pid, signal.SIGHUP)
    wait_for(lambda: practice.log.read_text().count("trust_reloaded") > before, what="the reload")


def recheck(practice: Practice, capsys: pytest.CaptureFixture[str], *words: str, status: int) -> Any:
    capsys.readouterr()
    assert main(["--config", str(practice.config), "message", "recheck", *words, "--json"]) == status
    return json.loads(capsys.readouterr().out)


def test_refused_mail_is_listed_repaired_and_judged_again(
    tmp_path: Path, partner_ca: Authority, stranger_ca: Authority
) -> None:
    practice = Practice.make(tmp_path / "practice", addresses=("inbox", "late"))
    late = practice.addresses[1]
    practice.trust(partner_ca.pem)
    identities, aside = practice.directory / "certs" / "identities", tmp_path / "aside"
    key_of_late = practice.identity(late)
    aside.mkdir()
    for path in identities.glob(f"{late}.*"):
        path.rename(aside / path.name)
    practice.start()
    try:
        good = partner_ca.issue(address=SENDER)
        deliver(practice, good, number=1, to=[late], keys=[key_of_late])
        stranger = deliver(practice, stranger_ca.issue(address=SENDER), number=2)
        eve = deliver(practice, partner_ca.issue(address="eve@partner.example"), number=3)
        listed = practice.json("quarantine", "list")
        assert [line["reason"] for line in listed] == ["binding_mismatch", "untrusted", "cannot_decrypt"]
        assert {line["claimed_sender"] for line in listed} == {SENDER}
        assert all(line["repair"] for line in listed)
        assert {c["reason"]: c["count"] for c in practice.json("quarantine", "summary")} == {
            "binding_mismatch": 1,
            "untrusted": 1,
            "cannot_decrypt": 1,
        }
        visible = practice.inbox() + practice.inbox(f"Addresses/{late}")
        assert stranger not in visible
        assert eve not in visible
        ids = {line["reason"]: line["id"] for line in listed}

        # Nothing was repaired: judged again, refused again.
        again = practice.run("quarantine", "retry", ids["untrusted"], "--json", check=False)
        assert again.returncode == 1
        [refused] = json.loads(again.stdout)["refused"]
        assert (refused["id"], refused["reason"]) == (ids["untrusted"], "untrusted")
        assert practice.process is not None
        told = practice.run("quarantine", "retry", ids["untrusted"], check=False)
        assert f"kill -HUP {practice.process.pid}" in told.stderr.decode()

        # The certificates that were seen show whom to trust; the operator decides, and both repairs are made.
        seen = practice.json("quarantine", "show", ids["untrusted"], "--certificates", str(tmp_path / "seen"))
        assert any("Stranger CA" in one["issuer"] for one in seen["certificates"])
        practice.trust(stranger_ca.pem, name="stranger")
        for path in aside.iterdir():
            path.rename(identities / path.name)
        reload(practice)
        again = practice.run("quarantine", "retry", "--all", "--json", check=False)
        outcome = json.loads(again.stdout)
        assert again.returncode == 1
        assert sorted(outcome["accepted"]) == sorted([ids["untrusted"], ids["cannot_decrypt"]])
        assert [(one["id"], one["reason"]) for one in outcome["refused"]] == [
            (ids["binding_mismatch"], "binding_mismatch")
        ]
        assert outcome["waiting"] == []
        practice.settled(3)
        assert stranger in practice.inbox()
        assert eve not in practice.inbox()
        assert [line["id"] for line in practice.json("quarantine", "list")] == [ids["binding_mismatch"]]
        assert practice.json("message", "show", ids["untrusted"])["state"] == "filed"
    finally:
        practice.stop()


def test_recheck_as_of_then_is_the_same_when_the_world_has_changed(
    tmp_path: Path,
    partner_ca: Authority,
    stranger_ca: Authority,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    practice = Practice.make(tmp_path / "practice", addresses=("inbox", "late"))
    late = practice.addresses[1]
    practice.trust(partner_ca.pem)
    now = datetime.now(UTC)
    good = partner_ca.issue(address=SENDER, not_after=now + timedelta(days=2))
    gone = partner_ca.issue(address=SENDER)
    crls = practice.directory / "certs" / "crls"
    (crls / "partner.crl").write_bytes(partner_ca.crl([gone]))
    identities = practice.directory / "certs" / "identities"
    key_of_late = practice.identity(late)
    hidden = {path.name: path.read_bytes() for path in identities.glob(f"{late}.*")}
    for name in hidden:
        (identities / name).unlink()
    below = partner_ca.intermediate("Below", slot=3)
    practice.start()
    try:
        kept = deliver(practice, good, number=1)
        deliver(practice, stranger_ca.issue(address=SENDER), number=2)
        deliver(practice, gone, number=3)
        deliver(practice, partner_ca.issue(address=SENDER, not_before=now - timedelta(9), not_after=now), number=4)
        deliver(practice, good, number=5, to=[late], keys=[key_of_late])
        deliver(practice, below.issue(address=SENDER), number=6)
        for name, data in hidden.items():
            (identities / name).write_bytes(data)
            (identities / name).chmod(0o600)
        reload(practice)
        practice.run("quarantine", "retry", "--reason", "cannot_decrypt")
        messages = {m["id"]: m["reason"] for m in practice.settled(6)}
        assert sorted(messages.values()) == ["expired", "ok", "ok", "revoked", "untrusted", "untrusted"]
    finally:
        practice.stop()

    # The world changes: no anchor is left, the list says the opposite, and fourteen years go by.
    for path in (practice.directory / "certs" / "anchors").iterdir():
        path.unlink()
    (crls / "partner.crl").write_bytes(partner_ca.crl([good]))
    monkeypatch.setattr(SystemClock, "now", lambda _: now + timedelta(days=5000))
    for message_id, reason in messages.items():
        found = recheck(practice, capsys, message_id, status=0)
        assert found["same"] is True
        assert found["again"]["reason"] == found["then"]["reason"] == reason
        assert found["again"]["delivered_to"] == found["then"]["delivered_to"]
        assert found["judged_as_of"] == found["judged_at"]
        assert found["what_to_do"] == ""

    # As of now nobody is trusted any more. Nothing is withdrawn, and the second look stays on record.
    filed = next(one for one in reversed(list(messages)) if messages[one] == "ok")
    found = recheck(practice, capsys, filed, "--as-of", "now", status=1)
    assert (found["then"]["reason"], found["again"]["reason"]) == ("ok", "untrusted")
    assert "nothing is withdrawn" in found["what_to_do"]
    assert main(["--config", str(practice.config), "message", "recheck", filed, "--as-of", "now"]) == 1
    shown = capsys.readouterr().out
    assert "DIFFERENT" in shown
    assert "nothing is withdrawn" in shown
    practice.trust(partner_ca.pem)
    (crls / "partner.crl").unlink()
    moment = (now + timedelta(days=3)).isoformat()
    assert recheck(practice, capsys, filed, "--as-of", moment, status=1)["again"]["reason"] == "expired"
    assert recheck(practice, capsys, filed, "--as-of", now.isoformat(), status=0)["same"] is True
    document = practice.json("message", "show", filed)
    assert [one["reason"] for one in document["rechecks"]] == ["ok", "untrusted", "untrusted", "expired", "ok"]
    assert {one["subject"] for one in document["rechecks"]} == {""}
    assert document["verdict"]["subject"] == "Referral"
    assert (document["state"], document["verdict"]["reason"]) == ("filed", "ok")
    monkeypatch.undo()
    practice.start()
    try:
        assert kept in practice.inbox()
    finally:
        practice.stop()
