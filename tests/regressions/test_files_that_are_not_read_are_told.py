"""An anchor or a revocation list whose file's name has another ending was passed over without a word."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from gateway import agents
from gateway.settings import TrustSettings
from tests.support.pki import Authority
from tests.unit.cli.clinic_harness import DOMAIN, Clinic
from tests.unit.cli.conftest import clinic, practice_template  # noqa: F401 - fixtures
from tests.unit.sta.trust_world import CA

COMMUNITY = CA.root("Community of Lists", 1)


def pem_to_der(pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)


@pytest.fixture
def settings(tmp_path: Path, partner_ca: Authority) -> TrustSettings:
    for name in ("identities", "anchors", "crls"):
        (tmp_path / name).mkdir()
    partner_ca.issue(address="r@b.example").write(tmp_path / "identities", "r")
    (tmp_path / "anchors" / "ca.pem").write_bytes(partner_ca.pem)
    return TrustSettings(
        identities_dir=tmp_path / "identities", anchors_dir=tmp_path / "anchors", crls_dir=tmp_path / "crls"
    )


def logged(caplog: pytest.LogCaptureFixture, event: str) -> list[str]:
    return [line for record in caplog.records if (line := record.getMessage()).startswith(event)]


def test_config_check_names_them(
    clinic: Clinic,  # noqa: F811 - the fixture
    partner_ca: Authority,
    capsys: pytest.CaptureFixture[str],
) -> None:
    certs = clinic.directory / "certs"
    (certs / "anchors" / "partner.txt").write_bytes(partner_ca.pem)
    own = certs / "anchors" / "inbound" / DOMAIN
    own.mkdir(parents=True)
    (own / "hisp").write_bytes(partner_ca.pem)
    (certs / "anchors" / ".hidden").write_bytes(partner_ca.pem)
    (certs / "anchors" / "README").write_bytes(b"these are anchors")
    (certs / "anchors" / "key.pem").write_bytes(partner_ca.identity.key_pem)
    der = pem_to_der(partner_ca.pem)
    (certs / "anchors" / "partner.bin").write_bytes(der)
    (certs / "crls" / "partner.crl.bak").write_bytes(COMMUNITY.crl())
    (certs / "crls" / "more").mkdir()
    (certs / "crls" / "more" / "partner.crl").write_bytes(COMMUNITY.crl())
    (certs / "crls" / "NOTES").write_bytes(b"these are lists")
    assert clinic.run("config", "check") == 0
    told = capsys.readouterr().err
    for named, why in (
        (
            certs / "anchors" / "partner.txt",
            "holds a certificate and is not read: the name of an anchor's file ends with .cer",
        ),
        (certs / "anchors" / "partner.bin", "holds a certificate and is not read"),
        (own / "hisp", "holds a certificate and is not read"),
        (certs / "crls" / "partner.crl.bak", "holds a revocation list and is not read: its name must end with"),
        (certs / "crls" / "more", "is a folder"),
    ):
        assert f"{named} {why}" in told
    for name in (".hidden", "README", "key.pem", "NOTES"):
        assert name not in told


def test_the_start_and_the_reload_log_how_many(
    settings: TrustSettings, partner_ca: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    (settings.anchors_dir / "partner.txt").write_bytes(partner_ca.pem)
    assert settings.crls_dir is not None
    (settings.crls_dir / "a.list").write_bytes(COMMUNITY.crl())
    (settings.crls_dir / "b.list").write_bytes(COMMUNITY.crl())
    agent = agents.ReloadableAgent(settings)
    assert logged(caplog, "anchors_left_out") == ["anchors_left_out count=1"]
    assert logged(caplog, "lists_left_out") == ["lists_left_out count=2"]
    assert "partner.txt" not in caplog.text
    caplog.clear()
    (settings.anchors_dir / "partner.txt").rename(settings.anchors_dir / "partner.pem")
    (settings.crls_dir / "a.list").unlink()
    agent.reload()
    assert logged(caplog, "anchors_left_out") == []
    assert logged(caplog, "lists_left_out") == ["lists_left_out count=1"]


def test_what_is_in_order_is_not_told(settings: TrustSettings, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    agents.build_agent(settings)
    assert logged(caplog, "anchors_left_out") + logged(caplog, "lists_left_out") == []
