"""The demonstration: what it makes, and that it fails aloud when something did not come out right."""

import email
import email.policy
import io
import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.charts.patient_files import PatientRow, read_patients
from gateway.cli import demo
from gateway.cli.demo_content import (
    PATIENT_ID,
    RECEIVER,
    SENDER,
    ccda,
    forged_message,
    genuine_message,
    patients_ndjson,
)
from gateway.cli.demo_mail import DemoError, Identity, Outer, seal
from gateway.cli.demo_world import Screen, free_ports
from gateway.keys.development_pki import DevelopmentCA

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)


def _identity(folder: Path, address: str, authority: DevelopmentCA) -> Identity:
    issued = authority.issue_address(address)
    certificate, key = folder / f"{address}.cert.pem", folder / f"{address}.key.pem"
    certificate.write_bytes(issued.certificate_pem)
    key.write_bytes(issued.key_pem)
    return Identity(certificate, key)


def test_exactly_one_patient_has_the_senders_address(tmp_path: Path) -> None:
    path = tmp_path / "patients.ndjson"
    path.write_text(patients_ndjson(), encoding="utf-8")
    rows = list(read_patients(path, NOW.date()))
    assert len(rows) == 3
    assert all(isinstance(row, PatientRow) and not row.notices for row in rows)
    owners = [row.patient.id for row in rows if isinstance(row, PatientRow) and SENDER in row.patient.direct_addresses]
    assert owners == [PATIENT_ID]


@pytest.mark.parametrize("message", [genuine_message(NOW, "<1@a.test>"), forged_message(NOW, "<2@a.test>")])
def test_messages_are_well_formed_and_have_crlf_only(message: bytes) -> None:
    assert b"\n" not in message.replace(b"\r\n", b"")
    assert b"\r" not in message.replace(b"\r\n", b"")
    parsed = email.message_from_bytes(message, policy=email.policy.default)
    assert not parsed.defects
    assert parsed["From"].addresses[0].addr_spec == SENDER
    assert parsed["To"].addresses[0].addr_spec == RECEIVER


def test_the_attachment_is_the_document() -> None:
    parsed = email.message_from_bytes(genuine_message(NOW, "<1@a.test>"), policy=email.policy.default)
    (attachment,) = parsed.iter_attachments()
    assert attachment.get_filename() == "summary-of-care.xml"
    assert attachment.get_content() == ccda()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the openssl command is not here")
def test_openssl_makes_what_smtp_may_carry(tmp_path: Path) -> None:
    authority = DevelopmentCA.create("a", now=datetime.now(UTC))
    sender, receiver = _identity(tmp_path, SENDER, authority), _identity(tmp_path, RECEIVER, authority)
    inner = genuine_message(NOW, "<1@a.test>")
    sealed = seal(inner, Outer(SENDER, RECEIVER, "<1@a.test>", NOW), sender, receiver.certificate)
    assert "openssl" in sealed.made_by
    assert b"\n" not in sealed.raw.replace(b"\r\n", b"")
    (tmp_path / "sealed").write_bytes(sealed.raw)
    opened = subprocess.run(
        [
            *("openssl", "cms", "-decrypt", "-in", tmp_path / "sealed"),
            *("-recip", receiver.certificate, "-inkey", receiver.key),
        ],
        capture_output=True,
        check=True,
        timeout=60,
    ).stdout
    assert inner in opened


def test_a_failing_openssl_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.cli.demo_mail.shutil.which", lambda _name: "/bin/false")
    nothing = Identity(tmp_path / "c", tmp_path / "k")
    with pytest.raises(DemoError, match="openssl cms failed"):
        seal(b"x", Outer(SENDER, RECEIVER, "<1@a.test>", NOW), nothing, tmp_path / "c")


def test_a_step_that_fails_ends_with_status_1_and_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise DemoError("the forged message is in the inbox")

    monkeypatch.setattr(demo, "make_practice", fail)
    assert demo.main(["--once"]) == 1
    assert "The demonstration failed: the forged message is in the inbox" in capsys.readouterr().out


def test_a_folder_in_use_is_not_touched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").write_text("mine")
    assert demo.main(["--once", "--dir", str(tmp_path)]) == 1
    assert "exists already" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(("encoding", "mark"), [("ascii", b"[ok]"), ("utf-8", "\u2713".encode())])
def test_the_screen_fits_the_terminal(encoding: str, mark: bytes) -> None:
    buffer = io.BytesIO()
    screen = Screen(io.TextIOWrapper(buffer, encoding=encoding, write_through=True))
    screen.step("caf\u00e9")
    screen.check("done")
    assert mark in buffer.getvalue()
    assert b"\x1b" not in buffer.getvalue(), "no colours where nobody looks"


def test_free_ports_differ() -> None:
    assert len(set(free_ports(5))) == 5


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_whole_demonstration_without_openssl(tmp_path: Path) -> None:
    """The fallback: the gateway's own wrapper makes the messages."""
    environment = dict(os.environ) | {"PATH": str(tmp_path), "DIRECTGW__SMTP__PORT": "1"}
    folder = tmp_path / "kept"
    done = subprocess.run(
        [sys.executable, "-m", "gateway.cli.demo", "--once", "--dir", str(folder)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=environment | {"PYTHONIOENCODING": "utf-8"},
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the gateway's own wrapper" in done.stdout
    assert "Everything came out right." in done.stdout
    records = [json.loads(path.read_bytes()) for path in folder.glob("lakeside-clinic/charts/*/*/record.json")]
    assert len(records) == 1
