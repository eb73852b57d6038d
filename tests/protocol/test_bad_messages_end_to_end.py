"""Messages that must never reach an inbox, through the real daemon (AS-42, AS-44, AS-49..AS-59).

All of them get the same 250: an unauthenticated sender learns nothing but SMTP's own reply. The operator sees
the precise reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.direct_messages import (
    CryptographyStack,
    direct_message,
    inner_message,
    outer_message,
    wrapped_entity,
)
from tests.support.gateway_process import Practice
from tests.support.pki import Authority, Identity, rsa_key

SENDER = "dr.ok@partner.example"
STACK = CryptographyStack()


@dataclass(frozen=True)
class Scene:
    """Everything a bad message is made from."""

    practice: Practice
    partner: Authority
    stranger: Authority

    @property
    def rcpt(self) -> str:
        return self.practice.addresses[0]

    @property
    def good_signer(self) -> Identity:
        return self.partner.issue(address=SENDER)

    def inner(self) -> bytes:
        return inner_message(SENDER, [self.rcpt], subject="PHI-CANARY")

    def signed_by(self, signer: Identity) -> bytes:
        return direct_message(
            STACK, self.inner(), sender=SENDER, recipients=[self.rcpt], signer=signer, to=[self.practice.identity()]
        )

    def encrypted(self, entity: bytes) -> bytes:
        return outer_message(STACK.encrypt(entity, [self.practice.identity()]), SENDER, [self.rcpt])


def plain(scene: Scene) -> bytes:
    return scene.inner()


def signed_only(scene: Scene) -> bytes:
    head = f"From: {SENDER}\r\nTo: {scene.rcpt}\r\nMIME-Version: 1.0\r\n".encode()
    return head + STACK.sign(wrapped_entity(scene.inner()), scene.good_signer)


def encrypted_only(scene: Scene) -> bytes:
    return scene.encrypted(wrapped_entity(scene.inner()))


def tampered_after_signing(scene: Scene) -> bytes:
    signed = STACK.sign(wrapped_entity(scene.inner()), scene.good_signer)
    changed = signed.replace(b"Please see", b"Please pay")
    assert changed != signed
    return scene.encrypted(changed)


def tampered_ciphertext(scene: Scene) -> bytes:
    whole = bytearray(scene.signed_by(scene.good_signer))
    lines = bytes(whole).split(b"\r\n")
    middle = len(lines) - 8
    lines[middle] = lines[middle][:10] + (b"A" if lines[middle][10:11] != b"A" else b"B") + lines[middle][11:]
    return b"\r\n".join(lines)


def untrusted(scene: Scene) -> bytes:
    return scene.signed_by(scene.stranger.issue(address=SENDER))


def expired(scene: Scene) -> bytes:
    now = datetime.now(UTC)
    return scene.signed_by(
        scene.partner.issue(address=SENDER, not_before=now - timedelta(days=9), not_after=now - timedelta(days=1))
    )


def wrong_sender(scene: Scene) -> bytes:
    return scene.signed_by(scene.partner.issue(address="eve@partner.example"))


def for_another_key(scene: Scene) -> bytes:
    other = scene.partner.issue(address=scene.rcpt, key=rsa_key(7))
    return direct_message(
        STACK, scene.inner(), sender=SENDER, recipients=[scene.rcpt], signer=scene.good_signer, to=[other]
    )


def not_for_signing(scene: Scene) -> bytes:
    return scene.signed_by(scene.partner.issue(address=SENDER, digital_signature=False))


BAD: list[tuple[Callable[[Scene], bytes], set[str]]] = [
    (plain, {"not_encrypted"}),
    (signed_only, {"not_encrypted"}),
    (encrypted_only, {"not_signed"}),
    (tampered_after_signing, {"bad_signature"}),
    (tampered_ciphertext, {"cannot_decrypt", "bad_signature", "malformed"}),
    (untrusted, {"untrusted"}),
    (expired, {"expired"}),
    (wrong_sender, {"binding_mismatch"}),
    (for_another_key, {"cannot_decrypt"}),
    (not_for_signing, {"key_usage"}),
]


@pytest.fixture
def scene(practice: Practice, partner_ca: Authority, stranger_ca: Authority) -> Scene:
    return Scene(practice, partner_ca, stranger_ca)


def test_bad_messages_are_refused_in_silence_and_named_inside(scene: Scene) -> None:
    replies = set()
    for number, (make, _) in enumerate(BAD, start=1):
        code, reply = scene.practice.send(make(scene), SENDER, [scene.rcpt])
        replies.add((code, reply.split(b" ")[0]))
        scene.practice.settled(number)
    code, _ = scene.practice.send(scene.signed_by(scene.good_signer), "else@partner.example", [scene.rcpt])
    assert code == 250
    good, _ = scene.practice.send(scene.signed_by(scene.good_signer), SENDER, [scene.rcpt])
    assert good == 250
    assert len(replies) == 1, "every message gets the same reply"

    listed = scene.practice.settled(len(BAD) + 2)[::-1]
    for (make, reasons), message in zip(BAD, listed, strict=False):
        assert message["state"] == "refused", make.__name__
        assert message["reason"] in reasons, (make.__name__, message["reason"])
        shown = scene.practice.json("message", "show", message["id"])
        assert shown["verdict"]["reason"] in reasons
    assert listed[len(BAD)]["reason"] == "routing_tamper"
    assert listed[len(BAD) + 1]["state"] != "refused"

    inbox = scene.practice.inbox()
    assert [body for body in inbox if b"PHI-CANARY" in body] == [scene.inner()], "only the good one is in the inbox"
    assert b"PHI-CANARY" not in scene.practice.log.read_bytes(), "no PHI in the log (F38)"
    assert SENDER.encode() not in scene.practice.log.read_bytes()


def test_a_refused_message_can_be_run_again_after_the_repair(scene: Scene) -> None:
    scene.practice.send(scene.signed_by(scene.stranger.issue(address=SENDER)), SENDER, [scene.rcpt])
    [refused] = scene.practice.settled(1)
    assert (refused["state"], refused["reason"]) == ("refused", "untrusted")
    scene.practice.stop()
    scene.practice.trust(scene.stranger.pem, name="stranger")
    scene.practice.start()
    scene.practice.run("message", "retry", refused["id"])
    [after] = scene.practice.settled(1)
    assert after["state"] == "filed"
    assert scene.inner() in scene.practice.inbox()
