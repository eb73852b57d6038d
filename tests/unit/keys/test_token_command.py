"""A token through the whole agent: ``message verify``, and the judgement when the token is lost."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.agents import ReloadableAgent, build_agent
from gateway.cli.main import main
from gateway.core.errors import ConfigurationError, KeyUnavailableError
from gateway.core.message import Envelope
from gateway.core.verdict import Reason
from gateway.keys import token_connection
from gateway.keys.loading import load_key_ring
from gateway.settings import TrustSettings
from gateway.sta.wrapper import wrap
from tests.support.softhsm import LABEL, FaultyToken
from tests.unit.sta_cms.cms_samples import NOW, RECIPIENT, SENDER, authority, file_key, identity

MESSAGE_ID = "<4712@practice.example.com>"
DATE = "Sun, 22 Nov 2026 12:00:00 +0000"
INNER = (
    f"From: {SENDER}\r\nTo: {RECIPIENT}\r\nDate: {DATE}\r\nMessage-ID: {MESSAGE_ID}\r\nMIME-Version: 1.0\r\n"
    "Subject: Token\r\nContent-Type: text/plain\r\n\r\nBody\r\n"
).encode()
ENVELOPE = Envelope(SENDER, (RECIPIENT,))


@dataclass
class Desk:
    token: FaultyToken
    folder: Path
    message: Path

    @property
    def settings(self) -> TrustSettings:
        return TrustSettings(
            identities_dir=self.folder / "identities",
            anchors_dir=self.folder / "anchors",
            crls_dir=None,
            fetch="off",
            pkcs11_module=self.token.library,
            pkcs11_token=LABEL,
            pkcs11_pin_file=self.token.pin_file(),
        )

    def verify(self, *words: str) -> int:
        return main(
            [
                *("message", "verify", str(self.message), "--anchors", str(self.folder / "anchors")),
                *("--at", NOW.isoformat(), "--mail-from", SENDER, "--rcpt-to", RECIPIENT, "--json", *words),
            ]
        )

    @property
    def options(self) -> tuple[str, ...]:
        pin = str(self.token.pin_file())
        return ("--pkcs11-module", str(self.token.library), "--pkcs11-token", LABEL, "--pkcs11-pin-file", pin)


@pytest.fixture
def desk(faulty: FaultyToken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(token_connection, "RETRY_AFTER_SECONDS", 0.0)
    faulty.put(identity(RECIPIENT), "01")
    for name in ("identities", "anchors"):
        (tmp_path / name).mkdir()
    (tmp_path / "anchors" / "ca.pem").write_bytes(authority().certificate_pem)
    message = tmp_path / "message.eml"
    message.write_bytes(
        wrap(
            INNER,
            signer=file_key(identity(SENDER)),
            recipient_certificates_pem=[identity(RECIPIENT).certificate_pem],
            sender=SENDER,
            recipients=[RECIPIENT],
            message_id=MESSAGE_ID,
            date=DATE,
        )
    )
    return Desk(faulty, tmp_path, message)


def test_a_message_is_verified_with_a_key_on_a_token(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert desk.verify(*desk.options) == 0
    (found,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (found["verdict"], found["reason"], found["delivered_to"]) == ("accepted", "ok", [RECIPIENT])


def test_a_lost_token_is_misuse_and_not_a_verdict(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.token.order("C_Decrypt", 0x30)
    assert desk.verify(*desk.options) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "cannot be judged now: the token 'clinic' does not work now (DeviceError)" in shown.err
    desk.token.order("gone")
    assert desk.verify(*desk.options) == 3


@pytest.mark.parametrize(
    ("left_out", "complaint"),
    [
        ("--pkcs11-token", "--pkcs11-module needs --pkcs11-token"),
        ("--pkcs11-module", "need --pkcs11-module"),
        ("--pkcs11-pin-file", "asks for a PIN"),
    ],
)
def test_options_that_belong_together(
    desk: Desk, capsys: pytest.CaptureFixture[str], left_out: str, complaint: str
) -> None:
    at = desk.options.index(left_out)
    assert desk.verify(*desk.options[:at], *desk.options[at + 2 :]) == 2
    assert complaint in capsys.readouterr().err


def test_a_wrong_pin_is_one_clear_line(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    options = desk.options
    desk.token.pin_file("wrong-pin")
    assert desk.verify(*options) == 2
    told = capsys.readouterr().err
    assert "the PIN in trust.pkcs11_pin_file is wrong for the token 'clinic'" in told
    assert "wrong-pin" not in told


def test_the_daemon_s_agent_waits_for_its_token(desk: Desk) -> None:
    agent = ReloadableAgent(desk.settings)
    raw = desk.message.read_bytes()
    assert agent.judge(raw, ENVELOPE, NOW).reason is Reason.OK
    for order, code in (("gone", 0), ("C_Decrypt", 0x05)):
        desk.token.order(order, code)
        with pytest.raises(KeyUnavailableError):
            agent.judge(raw, ENVELOPE, NOW)
        agent.reload()  # What cannot be read now does not replace what is in force.
        desk.token.recall(order)
        assert agent.judge(raw, ENVELOPE, NOW).reason is Reason.OK


def test_the_daemon_s_agent_refuses_what_the_token_cannot_open(desk: Desk) -> None:
    stranger = wrap(
        INNER,
        signer=file_key(identity(SENDER)),
        recipient_certificates_pem=[identity("other@clinic.example.org").certificate_pem],
        sender=SENDER,
        recipients=[RECIPIENT],
        message_id=MESSAGE_ID,
        date=DATE,
    )
    assert build_agent(desk.settings).judge(stranger, ENVELOPE, NOW).reason is Reason.CANNOT_DECRYPT


def test_a_wrong_setting_is_told_at_the_start(desk: Desk) -> None:
    settings = desk.settings
    desk.token.pin_file("wrong-pin")
    with pytest.raises(ConfigurationError, match="is wrong for the token"):
        build_agent(settings)


def test_a_token_signs_a_whole_message(desk: Desk) -> None:
    desk.token.put(identity(SENDER, "p384"), "02")
    settings = desk.settings
    ring = load_key_ring(None, None, desk.token.settings)
    (signer,) = ring.signers_for(SENDER, NOW)
    raw = wrap(
        INNER,
        signer=signer,
        chain=signer.chain,
        recipient_certificates_pem=[identity(RECIPIENT).certificate_pem],
        sender=SENDER,
        recipients=[RECIPIENT],
        message_id=MESSAGE_ID,
        date=DATE,
    )
    judgement = build_agent(settings).judge(raw, ENVELOPE, NOW)
    assert (judgement.reason, judgement.algorithms["signature"]) == (Reason.OK, "ecdsa-p384-sha384")
