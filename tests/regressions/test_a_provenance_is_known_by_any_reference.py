"""A server that keeps references absolute, or with a version, was given a second Provenance at each repeated attempt,
where it has no conditional creates: the answer to our search was held against the reference as we had written it.
"""

from __future__ import annotations

import json

import pytest

from tests.support.fhir_server import FHIRServer
from tests.support.fhir_target import BARE, importer_for
from tests.unit.importers.test_fhir_importer import known, server, started

__all__ = ["server", "started"]


@pytest.mark.parametrize("form", ["{base}/{reference}", "{reference}/_history/1", "{base}/{reference}/_history/1"])
async def test_once(server: FHIRServer, form: str) -> None:
    server.vary(**BARE)
    asked = known(server)
    receipt = await importer_for(server).import_message(asked)
    [made] = server.resources("Provenance")
    for target in made["target"]:
        target["reference"] = form.format(base=server.url, reference=target["reference"])
    server.put(json.loads(json.dumps(made)))
    assert await importer_for(server).import_message(asked) == receipt
    assert len(server.resources("Provenance")) == 1
