"""A C-CDA whose id stands under the system of our own identifiers was found in place of another link's document.

In R4 a search by ``identifier`` looks at ``masterIdentifier`` as well, which is the id that the sender has written: the
conditional create of the other document then made nothing, or found several.
"""

from __future__ import annotations

from gateway.importers.fhir.resources import SYSTEM
from gateway.ports import MessagePart
from tests.support.fhir_server import FHIRServer
from tests.support.fhir_target import importer_for, violations
from tests.unit.importers.test_fhir_importer import CDA, known, server, started

__all__ = ["server", "started"]


async def test_the_documents_of_another_link_are_made(server: FHIRServer) -> None:
    victim = known(server)
    root = SYSTEM.removeprefix("urn:uuid:").upper()
    forged = CDA.replace(b'root="1.2.3" extension="D-1"', f'root="{root}" extension="{victim.link.id}.1"'.encode())
    hostile = known(server, parts=(MessagePart("ccd.xml", "text/xml", forged),))
    await importer_for(server).import_message(hostile)
    await importer_for(server).import_message(victim)
    assert violations(server, [hostile, victim], {}) == []
