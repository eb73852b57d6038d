"""A trust bundle put into force, changed and withdrawn beside a running daemon (TB-7, TB-9, TB-11, TB-17)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.direct_messages import CryptographyStack, direct_message, inner_message
from tests.support.gateway_process import Practice, wait_for
from tests.support.pki import Authority, Identity

SENDER = "dr.ok@partner.example"
STACK = CryptographyStack()


@pytest.fixture
def practice(tmp_path: Path) -> Iterator[Practice]:
    made = Practice.make(tmp_path / "practice")
    made.start()
    try:
        yield made
    finally:
        made.stop()


def verdict_of(practice: Practice, signer: Identity, number: int) -> dict[str, Any]:
    """Send a message and return its evidence once it was judged."""
    recipients = [practice.addresses[0]]
    inner = inner_message(SENDER, recipients, message_id=f"<b{number}@partner.example>")
    raw = direct_message(
        STACK, inner, sender=SENDER, recipients=recipients, signer=signer, to=[practice.identity()]
    )  # fmt: skip
    assert practice.send(raw, SENDER, recipients)[0] == 250
    practice.settled(number)
    newest = practice.json("message", "list")[0]
    shown: dict[str, Any] = practice.json("message", "show", newest["id"])
    return shown


def reloads(practice: Practice) -> int:
    return practice.log.read_text().count("trust_bundles_in_force")


def change(practice: Practice, *words: str) -> None:
    """Run a bundle command, and wait until the daemon has noticed."""
    before = reloads(practice)
    practice.run("bundle", *words)
    wait_for(lambda: reloads(practice) > before, what="the change of the trust bundles")


def test_a_bundle_is_trusted_while_it_is_in_force_and_no_longer(
    practice: Practice, partner_ca: Authority, stranger_ca: Authority, tmp_path: Path
) -> None:
    bundle = tmp_path / "community.pem"
    bundle.write_bytes(partner_ca.pem)
    signer = partner_ca.issue(address=SENDER)
    assert verdict_of(practice, signer, 1)["verdict"]["reason"] == "untrusted"

    change(practice, "add", "community", str(bundle))
    accepted = verdict_of(practice, signer, 2)["verdict"]
    assert accepted["reason"] == "ok"
    assert [trust["anchor_sources"] for trust in accepted["trust"]] == [["bundle community version 1"]]

    # What was refused before the repair is judged again without a restart or a signal.
    retried = practice.run("quarantine", "retry", "--all", "--json")
    assert retried.returncode == 0
    assert len(practice.inbox()) == 2

    # The publisher drops the authority: nobody is trusted because of it from then on, and somebody must look.
    bundle.write_bytes(stranger_ca.pem)
    before = reloads(practice)
    assert practice.run("bundle", "refresh", "community", check=False).returncode == 1
    wait_for(lambda: reloads(practice) > before, what="the change of the trust bundles")
    [listed] = json.loads(practice.run("bundle", "list", "--json", check=False).stdout)
    assert listed["alarm"]
    assert verdict_of(practice, signer, 3)["verdict"]["reason"] == "untrusted"
    assert verdict_of(practice, stranger_ca.issue(address=SENDER), 4)["verdict"]["reason"] == "ok"

    change(practice, "disable", "community")
    assert verdict_of(practice, stranger_ca.issue(address=SENDER), 5)["verdict"]["reason"] == "untrusted"


def test_bundles_count_from_the_first_message_after_a_restart(
    practice: Practice, partner_ca: Authority, tmp_path: Path
) -> None:
    bundle = tmp_path / "community.pem"
    bundle.write_bytes(partner_ca.pem)
    change(practice, "add", "community", str(bundle), "--for", practice.addresses[0], "--direction", "inbound")
    bundle.unlink()
    practice.stop()
    practice.start()
    assert verdict_of(practice, partner_ca.issue(address=SENDER), 1)["verdict"]["reason"] == "ok"
