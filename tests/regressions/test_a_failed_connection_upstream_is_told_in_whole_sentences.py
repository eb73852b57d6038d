"""What is said of an upstream server that cannot be reached is a sentence, and names the setting to look at."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from gateway.core.fetch_settings import FetchSettings
from gateway.ingress.upstream_login import connect_error

ACCOUNT = FetchSettings(name="upstream", host="imap.example", port=993)


@pytest.mark.parametrize(
    ("ca_file", "by"),
    [
        (None, "the authorities of this system (or set ca_file)"),
        (Path("/etc/c2.pem"), "an authority in /etc/c2.pem (ca_file)"),
    ],
)
def test_a_certificate_that_is_not_good(ca_file: Path | None, by: str) -> None:
    error = ssl.SSLCertVerificationError(1, "x")
    error.verify_message = "self-signed certificate."
    account = FetchSettings(name="upstream", host="imap.example", port=993, ca_file=ca_file)
    assert str(connect_error(account, error)) == (
        f"the certificate of imap.example port 993 is not good: self-signed certificate; "
        f"it must be issued by {by} for the name in host"
    )


def test_nobody_at_home() -> None:
    refused = str(connect_error(ACCOUNT, ConnectionRefusedError(111, "x")))
    assert refused == "cannot connect to imap.example port 993: connection refused; see host and port"
    assert str(connect_error(ACCOUNT, TimeoutError())) == "imap.example port 993 does not answer; see host and port"
