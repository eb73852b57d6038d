"""Files and replies of certificates: one reader for all, in linear time, and cut ones are refused (AS-66, TB-1).

The reader of folders went back and forth between markers without end: a file of 1 MB took minutes.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.core.errors import BundleError, ConfigurationError
from gateway.sta.revocation.crls import crl_ders
from gateway.sta.trust_anchors.bundle_file import read_bundle
from gateway.sta.trust_anchors.certificate_files import certificate_ders, pem_blocks, read_certificates
from tests.support.bundle_files import NOW, anchor, armoured, ber_p7b, der, p7b, pem

BEGIN, END = b"-----BEGIN CERTIFICATE-----\n", b"-----END CERTIFICATE-----\n"
FORMS = {
    "DER": der(anchor(1)),
    "PEM": pem(anchor(1)),
    "PEM behind a long text": b"Certificate:\n" + b"    aa:bb - cc\n" * 1_000 + pem(anchor(1)),
    "certs-only": p7b(anchor(1)),
    "certs-only, BER": ber_p7b(anchor(1)),
    "certs-only, PEM": armoured(p7b(anchor(1))),
    "certs-only, PEM as old tools name it": armoured(p7b(anchor(1)), "PKCS #7 SIGNED DATA"),
    "beside an encrypted key": b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n"
    b"AAAA\n-----END RSA PRIVATE KEY-----\n" + pem(anchor(1)),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read_in_a_folder_and_in_a_reply(form: str, tmp_path: Path) -> None:
    assert certificate_ders(FORMS[form]) == [der(anchor(1))]
    for suffix in ("pem", "p7c", "CER"):
        path = tmp_path / f"a.{suffix}"
        path.write_bytes(FORMS[form])
        assert [one.der for one in read_certificates(path)] == [der(anchor(1))]


@pytest.mark.parametrize(
    "data",
    [
        BEGIN * 40_000,
        END * 40_000,
        (BEGIN + b"AAAA\n") * 40_000,
        b"-----BEGIN " * 100_000,
        b"-----BEGIN A-----" * 60_000 + b"-----END B-----",
        b"-" * 1_000_000 + BEGIN,
        (BEGIN + b"AAAA\n" + END) * 20_000 + BEGIN,
    ],
)
def test_markers_without_end_cost_no_time(data: bytes) -> None:
    began = time.process_time()
    for read in (certificate_ders, pem_blocks, crl_ders):
        with suppress(ValueError):
            read(data)
    with pytest.raises(BundleError):
        read_bundle(data, None, NOW)
    assert time.process_time() - began < 1


@pytest.mark.parametrize("cut", [pem(anchor(1), anchor(2))[:-30], pem(anchor(1)) + BEGIN, pem(anchor(1))[30:]])
def test_a_file_that_was_cut_is_not_read_as_a_smaller_one(cut: bytes, tmp_path: Path) -> None:
    if b"-----BEGIN " in cut:
        with pytest.raises(ValueError, match="damaged PEM"):
            certificate_ders(cut)
    path = tmp_path / "a.pem"
    path.write_bytes(cut)
    with pytest.raises(ConfigurationError, match=r"a\.pem"):
        read_certificates(path)
    with pytest.raises(BundleError):
        read_bundle(cut, None, NOW)


@pytest.mark.parametrize("data", [b"", b"text", b"\x30\x03\x02\x01\x01", der(anchor(1))[:-1], p7b(), b"\x30\x80" * 500])
def test_what_is_no_certificate_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.cer"
    path.write_bytes(data)
    with pytest.raises(ConfigurationError, match="no readable certificate"):
        read_certificates(path)
