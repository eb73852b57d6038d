"""A POP3 server that does not double the dots at the beginning of lines ends a message early: half of it is not mail.

The half was taken in, and what followed it was read as answers to the next commands, the one that deletes among them:
the server had then deleted the only whole copy.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.core.fetching import ItemTrouble
from tests.unit.ingress.fetch_harness import desk_in, mail
from tests.unit.ingress.test_fetch_pop3 import ScriptedPOP3


async def test_what_goes_on_after_its_end_is_set_aside_and_not_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.ingress.fetch_intake.PAUSE_SECONDS", 0.0)
    whole = mail(1) + b".\r\n+OK the rest\r\n+OK the rest\r\n"
    async with ScriptedPOP3() as server:
        with desk_in(tmp_path, server.port, protocol="pop3", after="delete") as desk:
            server.messages["a"] = whole
            server.answers["RETR"] = b"+OK\r\n" + whole + b".\r\n"
            for _ in range(6):
                await desk.look()
            assert desk.bodies == []
            assert server.messages == {"a": whole}
            assert [(item.uid, item.trouble) for item in desk.troubled] == [("a", ItemTrouble.CONNECTION)]
