"""A token endpoint that the server once named was kept for ever, also when it gave no token any more; and a lifetime of
a token beyond all numbers ended the attempt by an error of the interpreter.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.core.errors import ImportFailedError
from gateway.importers.http_client import HTTPClient, Reply
from tests.support.fhir_server import FHIRServer
from tests.support.fhir_target import client_of, ec_key, importer_for
from tests.unit.importers.test_fhir_importer import known, server, started

__all__ = ["server", "started"]


async def test_a_server_that_moves_its_token_endpoint(server: FHIRServer, tmp_path: Path) -> None:
    settings, client = client_of(tmp_path, ec_key())
    server.vary(client=client, token_endpoint=f"{server.url}/nowhere")
    asked = known(server)
    importer = importer_for(server, **settings)
    with pytest.raises(ImportFailedError) as caught:
        await importer.import_message(asked)
    assert caught.value.reason.startswith("token_")
    server.vary(client=client)
    assert await importer.import_message(asked)


@pytest.mark.parametrize("told", ["1" + "0" * 400, "NaN", "1e999", "true", "-1"])
async def test_a_lifetime_beyond_numbers(
    server: FHIRServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    settings, client = client_of(tmp_path, ec_key())
    server.vary(client=client)
    request = HTTPClient.request

    async def odd(self: HTTPClient, method: str, target: str, *rest: Any, **more: Any) -> Reply:
        reply = await request(self, method, target, *rest, **more)
        if not target.endswith("/token"):
            return reply
        return Reply(
            reply.status, reply.headers, reply.body.replace(b'"expires_in": 300', f'"expires_in": {told}'.encode())
        )

    monkeypatch.setattr(HTTPClient, "request", odd)
    assert await importer_for(server, **settings).import_message(known(server))
