"""A FHIR Patient of whom only the year of birth is known, and another one, was taken for ours; and of several with one
number, those beyond the first page of the search were not seen.
"""

from __future__ import annotations

import pytest

from gateway.core.errors import ImportFailedError
from tests.support.fhir_server import FHIRServer
from tests.support.fhir_target import importer_for
from tests.unit.importers.test_fhir_importer import known, refused, server, started

__all__ = ["server", "started"]


@pytest.mark.parametrize("born", ["1980", "1970-02"])
async def test_part_of_a_date_of_birth_speaks_against_a_chart(server: FHIRServer, born: str) -> None:
    asked = known(server)
    assert asked.patient.birth_date is not None
    assert not asked.patient.birth_date.isoformat().startswith(born)
    server.add_patient(asked.patient.id, birthDate=born)
    assert await refused(server, asked) == "patient_differs"


async def test_part_of_the_same_date_fits(server: FHIRServer) -> None:
    asked = known(server)
    assert asked.patient.birth_date is not None
    server.add_patient(asked.patient.id, birthDate=asked.patient.birth_date.isoformat()[:4])
    assert await importer_for(server).import_message(asked)


async def test_several_patients_are_seen_over_pages(server: FHIRServer) -> None:
    asked = known(server)
    for number in ("a", "b"):
        server.add_patient(number, identifier=[{"system": "urn:oid:1.2", "value": asked.patient.mrn}])
    server.vary(page_size=1)
    assert await refused(server, asked, patient_identifier_system="urn:oid:1.2") == "several_patients"


@pytest.mark.parametrize(
    ("told", "asked_for"),
    [
        ("{url}?_getpages=a-b&_bundletype=searchset", "?_getpages=a-b&_bundletype=searchset"),
        ("{url}/Patient?page=2", "Patient?page=2"),
        ("Patient?page=2", "Patient?page=2"),
        ("//elsewhere.example/fhir/Patient?page=2", None),
        ("{url}@elsewhere.example/fhir/Patient", None),
        ("{url}/Patient?page=2\r\nx: y", None),
        ("{url}/Patient#2", None),
        ("http://[::1/fhir", None),
    ],
)
def test_the_next_page_is_at_this_server(server: FHIRServer, told: str, asked_for: str | None) -> None:
    client = importer_for(server)._server
    bundle = {"link": [{"relation": "self", "url": "x"}, {"relation": "next", "url": told.format(url=server.url)}]}
    if asked_for is not None:
        assert client._next_page(bundle) == asked_for
        return
    with pytest.raises(ImportFailedError) as caught:
        client._next_page(bundle)
    assert caught.value.reason == "bad_next_page"
