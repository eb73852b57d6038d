"""A NUL in the first decrypted header field was taken for a wrong key, and the reason was cannot_decrypt (i04)."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from gateway.core.message import Envelope
from gateway.core.verdict import Reason
from gateway.keys.loading import load_key_ring
from gateway.sta.agent import SecurityTrustAgent
from gateway.sta.trust_anchors.anchor_folder import load_anchors
from tests.support.direct_messages import CryptographyStack, outer_message
from tests.support.pki import Authority

NOW = datetime.now(UTC)
SENDER, RCPT = "s@partner.example", "r@clinic.example"


def test_the_fault_is_named(tmp_path: Path, partner_ca: Authority) -> None:
    recipient = partner_ca.issue(address=RCPT, slot=1)
    recipient.write(tmp_path / "identities", "r")
    (tmp_path / "anchors").mkdir()
    (tmp_path / "anchors" / "ca.pem").write_bytes(partner_ca.pem)
    agent = SecurityTrustAgent(load_key_ring(tmp_path / "identities"), load_anchors(tmp_path / "anchors"))
    entity = b"From: s\x00@partner.example\r\nContent-Type: text/plain\r\n\r\nhello\r\n"
    raw = outer_message(CryptographyStack().encrypt(entity, [recipient]), SENDER, [RCPT])
    judgement = agent.judge(raw, Envelope(SENDER, (RCPT,)), NOW)
    assert judgement.reason is Reason.NOT_SIGNED, "it was decrypted, and it is not signed"
