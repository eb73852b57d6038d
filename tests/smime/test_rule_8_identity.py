"""S/MIME rule 8: From holds one plain address, and the signer's certificate is bound to it (i01 to i11)."""

from __future__ import annotations

import pytest

from gateway.core.verdict import Judgement, Reason
from tests.smime.clinic import Clinic
from tests.support.direct_messages import wrapped_entity
from tests.support.forge_signatures import Signed, Signing
from tests.unit.sta.trust_world import RCPT, SENDER


def signed_message(clinic: Clinic, inner: bytes) -> Judgement:
    return clinic.judge(clinic.sealed(Signed(wrapped_entity(inner), [Signing(clinic.sender())]).entity()))


# --- rule 8 ---


@pytest.mark.parametrize(
    "sender",
    [
        b"eve@evil.example",
        b'"jane@direct.sender.example" <eve@evil.example>',
        b"jane@direct.sender.example, eve@evil.example",
        b"eve@evil.example, jane@direct.sender.example",
        b"jane@direct.sender.example <eve@evil.example>",
        b"<jane@direct.sender.example> <eve@evil.example>",
        b"=?utf-8?q?jane=40direct=2Esender=2Eexample?= <eve@evil.example>",
        b"=?utf-8?q?jane=40direct=2Esender=2Eexample?=",
        b"jane@direct.sender.example\x00@evil.example",
        b"jane(a comment)@direct.sender.example",
        b"<@evil.example:jane@direct.sender.example>",
        b"jane@direct.sender.example.",
        b"jane@[direct.sender.example]",
        b'"jane"@direct.sender.example',
        b"jane @direct.sender.example",
        b"group: jane@direct.sender.example;",
        b"jane@direct.sender.example\r\n\t<eve@evil.example>",
        "jane@direct.sender.ex\u0430mple".encode(),
        "j\u0430ne@direct.sender.example".encode(),
        b"jane@sub.direct.sender.example",
        b"jane@sender.example",
        b"*@direct.sender.example",
        b"",
        b"undisclosed",
    ],
)
def test_rule_8_one_plain_address_or_nobody(clinic: Clinic, sender: bytes) -> None:
    """i01 to i11: whatever could be read as somebody else by another program is refused."""
    inner = b"From: " + sender + b"\r\nTo: " + RCPT.encode() + b"\r\nContent-Type: text/plain\r\n\r\nx\r\n"
    judgement = signed_message(clinic, inner)
    assert judgement.reason in {Reason.BINDING_MISMATCH, Reason.MALFORMED}
    assert (judgement.sender, judgement.content) == ("", None)


@pytest.mark.parametrize(
    "sender",
    [
        SENDER.encode(),
        b"Jane Doe <jane@direct.sender.example>",
        b'"eve@evil.example" <JANE@Direct.Sender.Example>',
        b"jane@direct.sender.example (Jane)",
        b"Jane\r\n\t<jane@direct.sender.example>",
        "J\u00e4ne <jane@direct.sender.example>".encode(),
    ],
)
def test_rule_8_the_same_address_in_other_clothes_is_fine(clinic: Clinic, sender: bytes) -> None:
    inner = b"From: " + sender + b"\r\nTo: " + RCPT.encode() + b"\r\nContent-Type: text/plain\r\n\r\nx\r\n"
    judgement = signed_message(clinic, inner)
    assert (judgement.reason, judgement.sender) == (Reason.OK, SENDER)
