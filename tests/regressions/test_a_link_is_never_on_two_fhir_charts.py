"""An import that was cut off was completed on another chart, when the number of the patient was mended meanwhile.

What the first attempt had made stayed with the one, what the second made went to the other, and the receipt said that
all was well. What is there already is held against the chart of this attempt now.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import pytest

from gateway.core.errors import ImportFailedError
from tests.support.fhir_server import FHIRServer
from tests.support.fhir_target import BARE, STEPS, importer_for
from tests.unit.importers.test_fhir_importer import known, refused, server, started

__all__ = ["server", "started"]

SYSTEM = "urn:oid:1.2"


@pytest.mark.parametrize("variant", [{}, STEPS, BARE], ids=["transaction", "steps", "bare"])
async def test_what_is_there_is_on_this_chart(server: FHIRServer, variant: dict[str, Any]) -> None:
    server.vary(**variant)
    asked = known(server)
    mended = replace(asked, patient=replace(asked.patient, mrn="M-2"))
    for name, mrn in (("a", asked.patient.mrn), ("b", "M-2")):
        server.add_patient(name, identifier=[{"system": SYSTEM, "value": mrn}])
    for step in range(1, 20):
        server.behave("cut_after", at=step)
        with contextlib.suppress(ImportFailedError):
            await importer_for(server, patient_identifier_system=SYSTEM).import_message(asked)
        if server.resources("DocumentReference"):
            break
    server.behave()
    assert await refused(server, mended, patient_identifier_system=SYSTEM) == "other_chart"
    subjects = {one["subject"]["reference"] for one in server.resources("DocumentReference")}
    assert subjects == {"Patient/a"}
    assert server.resources("Communication") == [] or variant == {}
    assert await importer_for(server, patient_identifier_system=SYSTEM).import_message(asked)
