"""The audit log of the real daemon: what a day leaves in it, and that it holds afterwards (ON-10..ON-18)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.direct_messages import CryptographyStack, direct_message, inner_message
from tests.support.gateway_process import Practice, wait_for
from tests.support.pki import Authority

SENDER = "jane.doe@phr.example"


def events(practice: Practice) -> list[dict[str, Any]]:
    done = practice.run("audit", "list", "--limit", "1000", "--ascending", "--json")
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_a_day_of_the_daemon_is_in_a_log_that_holds(tmp_path: Path, partner_ca: Authority) -> None:
    practice = Practice.make(tmp_path / "clinic")
    practice.trust(partner_ca.pem)
    practice.start()
    try:
        raw = direct_message(
            CryptographyStack(), inner_message(SENDER, practice.addresses), sender=SENDER,
            recipients=practice.addresses, signer=partner_ca.issue(address=SENDER),
            to=[practice.identity(practice.addresses[0])],
        )  # fmt: skip
        assert practice.send(raw, SENDER, practice.addresses)[0] == 250
        [message] = practice.settled(1)
        assert len(practice.inbox()) == 1
        heads = tmp_path / "clinic" / "audit-heads"
        wait_for(lambda: heads.is_dir() and list(heads.glob("head-*.json")), what="the first head")
    finally:
        assert practice.stop() == 0
    found = events(practice)
    actions = [event["action"] for event in found]
    for action in (
        "gateway.started",
        "message.received",
        "message.accepted",
        "message.filed",
        "login.succeeded",
        "message.read",
        "gateway.stopped",
    ):
        assert action in actions, action
    # Every row of the day is answered for by an event that says what was done.
    assert [event for event in found[3:] if event["action"] == "rows.written"] == []
    about = practice.run("audit", "list", "--subject", message["id"], "--json")
    assert "message.read" in {event["action"] for event in json.loads(about.stdout)}
    [head] = heads.glob("head-*.json")
    verified = practice.run("audit", "verify", "--against", str(head))
    assert verified.returncode == 0, verified.stdout


def test_a_start_names_the_settings_that_changed_and_the_stop_that_is_missing(tmp_path: Path) -> None:
    practice = Practice.make(tmp_path / "clinic")
    practice.start()
    practice.kill()
    config = practice.config
    config.write_text(config.read_text().replace("max_recipients = 100\n", "max_recipients = 99\n"))
    practice.start()
    assert practice.stop() == 0
    first, second = [event["detail"] for event in events(practice) if event["action"] == "gateway.started"]
    assert (first["changed"], first["stop_before"]) == ([], "none")
    assert (second["changed"], second["stop_before"]) == (["smtp.max_recipients"], "missing")
    assert first["settings_sha256"] != second["settings_sha256"]
    assert practice.run("audit", "verify").returncode == 0
