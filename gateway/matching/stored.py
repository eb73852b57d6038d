"""The patients of the store as records of the index."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.claims import Identifier, PersonName, PostalAddress
from gateway.matching.records import PatientRecord
from gateway.ports import Patient, PatientDetail

RECORD_NUMBERS = frozenset({"", "MR", "PI", "PT", "MRN"})
"""Types of HL7 table 0203 of which a patient has one per assigner."""


def record_of(
    patient: Patient,
    assigners: Sequence[str] = (),
    merged_into: str = "",
    detail: PatientDetail | None = None,
) -> PatientRecord:
    """The record of a stored patient.

    Args:
        patient: of the store.
        assigners: by which names others call the practice as the assigner of its record numbers (an OID, a FHIR
            system, an HL7 v2 namespace). Without any, a record number can be searched for and never links.
        merged_into: the id of the record that took the patient's place.
        detail: what a feed or a file said besides: previous names, numbers with their assigners, other contacts.
    """
    more = detail or PatientDetail()
    numbers = [Identifier(patient.mrn, assigner, "MR") for assigner in (assigners or ("",))] if patient.mrn else []
    numbers += [number for number in more.identifiers if number.kind.upper() in RECORD_NUMBERS]
    # The id may be what the EHR shows its users: whoever types it means this patient. It has no assigner.
    numbers.append(Identifier(patient.id))
    name = PersonName(patient.family, (patient.given,) if patient.given else ())
    has_address = patient.address_line or patient.city or patient.postal_code
    line = (patient.address_line,) if patient.address_line else ()
    return PatientRecord(
        id=patient.id,
        names=(name, *more.names),
        birth_date=patient.birth_date,
        sex=patient.sex,
        identifiers=tuple(numbers),
        phones=(*((patient.phone,) if patient.phone else ()), *more.phones),
        emails=more.emails,
        direct_addresses=patient.direct_addresses,
        addresses=(
            *((PostalAddress(line, patient.city, "", patient.postal_code),) if has_address else ()),
            *more.addresses,
        ),
        active=patient.active,
        deceased=patient.deceased,
        merged_into=merged_into,
    )
