"""``[pop3]``: off by default, and never less patient than RFC 1939 allows; the page for people shows its ports."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.core.errors import ConfigurationError
from gateway.settings import IMAPSettings, POP3Settings, from_document
from gateway.web.pages import home


def test_off_until_a_port_is_set() -> None:
    assert (POP3Settings().port, POP3Settings().tls_port) == (0, 0)
    assert "POP3" not in home(IMAPSettings(), POP3Settings())
    page = home(IMAPSettings(), POP3Settings(tls_port=1995))
    assert "over POP3" in page
    assert "<code>1995</code>" in page


def test_ten_minutes_are_the_least() -> None:
    made = from_document({"pop3": {"idle_timeout_minutes": 10, "port": 1110, "folder": "Sent"}}, Path("/x"))
    assert made.pop3 == POP3Settings(port=1110, folder="Sent")
    with pytest.raises(ConfigurationError, match=r"pop3\.idle_timeout_minutes must be between 10 and"):
        from_document({"pop3": {"idle_timeout_minutes": 9}}, Path("/x"))
