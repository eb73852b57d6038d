"""Whose chart a link means at the FHIR server.

A patient of ours is the FHIR Patient of the same id, or the one with his MRN under the system of the settings. What
was found is held against what we know: a server that ignores a search parameter, an index that is out of date or a
merged record must not lead to another person's chart.

Failure modes: ImportRefusedError for a person to look at, ImportFailedError.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gateway.core.errors import ImportRefusedError
from gateway.importers.fhir.capabilities import Capabilities
from gateway.importers.fhir.resources import named_in
from gateway.importers.fhir.server import FHIRServer
from gateway.ports import Patient

PATIENT = "Patient"
_ID = re.compile(r"[A-Za-z0-9.-]{1,64}\Z", re.ASCII)
_DATE = re.compile(r"\d{4}(?:-\d{2}(?:-\d{2})?)?\Z", re.ASCII)
"""A FHIR date may be a year, or a month."""


async def patient_reference(server: FHIRServer, able: Capabilities, patient: Patient, system: str) -> dict[str, Any]:
    """The reference to a patient. ``system``: that of the MRN; empty: his id is that of the FHIR Patient.

    Raises:
        ImportRefusedError: there is none, several, another person, or one that was merged away.
        ImportFailedError: the server does not answer as it should.
    """
    found = await (_searched(server, patient, system) if system else _read(server, able, patient))
    if found is None:
        return {"reference": f"{PATIENT}/{patient.id}"}
    links = found.get("link")
    every = [one for one in links if isinstance(one, dict)] if isinstance(links, list) else []
    if any(one.get("type") == "replaced-by" for one in every):
        raise ImportRefusedError("the record of the patient was merged into another one", reason="patient_replaced")
    born = found.get("birthDate")
    ours = patient.birth_date.isoformat() if patient.birth_date else ""
    if ours and isinstance(born, str) and _DATE.match(born) and not ours.startswith(born):
        raise ImportRefusedError("the patient there was born on another day", reason="patient_differs")
    return {"reference": f"{PATIENT}/{found['id']}"}


def assumed_reference(patient: Patient, system: str) -> dict[str, Any]:
    """The reference as it would be, without asking: for a preview."""
    if system:
        return {"reference": f"{PATIENT}?identifier={system}|{_checked_mrn(patient)}"}
    return {"reference": f"{PATIENT}/{_checked_id(patient)}"}


async def _read(server: FHIRServer, able: Capabilities, patient: Patient) -> Mapping[str, Any] | None:
    """The Patient of this id, or None where it may not be read: then the server's own check of references must do."""
    patient_id = _checked_id(patient)
    if "read" not in able.of(PATIENT).interactions:
        return None
    answer = await server.ask("GET", f"{PATIENT}/{patient_id}")
    if answer.status in {404, 410}:
        raise _unknown()
    if answer.status == 403:
        return None
    told = answer.document or {}
    if answer.status != 200 or told.get("resourceType") != PATIENT or told.get("id") != patient_id:
        raise server.nack(answer)
    return told


async def _searched(server: FHIRServer, patient: Patient, system: str) -> Mapping[str, Any]:
    mrn = _checked_mrn(patient)
    escaped = re.sub(r"([\\|,$])", r"\\\1", mrn)

    def has_it(one: Mapping[str, Any]) -> bool:
        return f"{system}|{mrn}" in named_in(one, "identifier") and _ID.match(str(one.get("id", ""))) is not None

    found = await server.search(PATIENT, {"identifier": f"{system}|{escaped}"}, has_it, by_post=True)
    if not found:
        raise _unknown()
    if len({one["id"] for one in found}) > 1:
        raise ImportRefusedError("several patients have this number", reason="several_patients")
    return found[0]


def _checked_id(patient: Patient) -> str:
    if not _ID.match(patient.id):
        raise ImportRefusedError("the id of the patient is none that FHIR allows", reason="bad_patient_id")
    return patient.id


def _checked_mrn(patient: Patient) -> str:
    if not patient.mrn.strip():
        raise ImportRefusedError("the patient has no medical record number, and it is searched by", reason="no_mrn")
    return patient.mrn


def _unknown() -> ImportRefusedError:
    return ImportRefusedError("the server knows no such patient", reason="unknown_patient")
