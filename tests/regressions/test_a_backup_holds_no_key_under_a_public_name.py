"""A private key stayed out of a backup only when its file was named or labelled as one.

PKCS #12 and PKCS #8 in a file whose name says certificate went in whole, and so did whatever text stood above one, be
it what ``openssl pkey -text`` prints of a key.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    pkcs7,
    pkcs12,
)

from gateway.cli.main import main


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    folder = tmp_path / "clinic"
    assert main(["init", str(folder), "--domain", "clinic.example", "--address", "inbox", "--json"]) == 0
    return folder


def own(clinic: Path) -> tuple[x509.Certificate, RSAPrivateKey]:
    [key] = (clinic / "certs" / "identities").glob("*.key.pem")
    certificate = key.with_name(key.name.replace(".key.", ".cert."))
    loaded = load_pem_private_key(key.read_bytes(), None)
    assert isinstance(loaded, RSAPrivateKey)
    return x509.load_pem_x509_certificate(certificate.read_bytes()), loaded


def backed_up(clinic: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Path, list[str]]:
    capsys.readouterr()
    assert main(["backup", "create", str(clinic.parent / "copy"), "--config", str(clinic), "--json"]) == 0
    return clinic.parent / "copy" / "settings", json.loads(capsys.readouterr().out)["left_out"]


@pytest.mark.parametrize("suffix", ["cer", "crt", "crl", "p7b", "p7c", "der", "CRT", "pem", "txt"])
def test_keys_under_public_names_stay_out(clinic: Path, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    certificate, key = own(clinic)
    plain = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    files = {
        "pkcs12": pkcs12.serialize_key_and_certificates(b"x", key, certificate, None, BestAvailableEncryption(b"pw")),
        "pkcs8": plain,
        "rsa": key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption()),
        "sealed": key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(b"pw")),
        "behind": certificate.public_bytes(Encoding.DER) + plain,
        "mislabelled": b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        "headers": b"-----BEGIN CERTIFICATE-----\nProc-Type: 4,ENCRYPTED\n\nMIIB\n-----END CERTIFICATE-----\n",
    }
    for name, data in files.items():
        (clinic / "certs" / f"{name}.{suffix}").write_bytes(data)
    settings, left = backed_up(clinic, capsys)
    for name in files:
        assert not (settings / "certs" / f"{name}.{suffix}").exists(), name
        assert f"certs/{name}.{suffix}" in left


def test_text_beside_a_certificate_stays_out(clinic: Path, capsys: pytest.CaptureFixture[str]) -> None:
    certificate, key = own(clinic)
    pem = certificate.public_bytes(Encoding.PEM)
    printed = b"Private-Key: (2048 bit)\nprivateExponent:\n %x\n" % key.private_numbers().d
    path = clinic / "certs" / "anchors" / "told.pem"
    path.write_bytes(printed + pem + b"password: hunter2\n" + pem)
    settings, left = backed_up(clinic, capsys)
    assert (settings / "certs" / "anchors" / "told.pem").read_bytes() == pem + pem, "the anchors must be there"
    assert "certs/anchors/told.pem" not in left


def test_what_is_public_goes_in_as_it_is(clinic: Path, capsys: pytest.CaptureFixture[str]) -> None:
    certificate, _ = own(clinic)
    files = {
        "one.der": certificate.public_bytes(Encoding.DER),
        "one.crt": certificate.public_bytes(Encoding.DER),
        "two.pem": certificate.public_bytes(Encoding.PEM) * 2,
        "windows.pem": certificate.public_bytes(Encoding.PEM).replace(b"\n", b"\r\n"),
        "bundle.p7b": pkcs7.serialize_certificates([certificate], Encoding.DER),
        "bundle.pem": pkcs7.serialize_certificates([certificate], Encoding.PEM),
    }
    for name, data in files.items():
        (clinic / "certs" / "anchors" / name).write_bytes(data)
    settings, left = backed_up(clinic, capsys)
    for name, data in files.items():
        assert (settings / "certs" / "anchors" / name).read_bytes() == data, name
    # Of the practice itself everything but its private keys goes in.
    public = [one for one in (clinic / "certs").rglob("*.pem") if b"PRIVATE" not in one.read_bytes()]
    assert all((settings / one.relative_to(clinic)).read_bytes() == one.read_bytes() for one in public)
    assert all(re.search(r"key|\.p12$", one) for one in left), left
