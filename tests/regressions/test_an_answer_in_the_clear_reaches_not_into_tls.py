"""An answer to STARTTLS that announced a literal made us swallow the first bytes that came under TLS (F21).

Somebody on the way could so cut away the beginning of what the real server says first, its capabilities.
"""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from tests.unit.ingress.test_fetch_hostile import both, on


@pytest.mark.parametrize("answer", ["OK go {40}\r\n", "OK go\r\n* half a line"])
async def test_nothing_that_was_announced_in_the_clear_is_read_under_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    begun: list[str] = []
    real = ssl.SSLContext.wrap_bio

    def wrap_bio(self: ssl.SSLContext, *args: object, **named: object) -> ssl.SSLObject:
        begun.append("handshake")
        return real(self, *args, **named)  # type: ignore[arg-type]

    async with both(tmp_path, tls="starttls") as (server, desk):
        server.override = on("STARTTLS", lambda tag, _words: f"{tag} {answer}".encode())
        monkeypatch.setattr(ssl.SSLContext, "wrap_bio", wrap_bio)
        assert "in the clear" in (await desk.look()).error
        assert begun == []
        assert server.logins == 0
