"""What the index is given of a patient. The caller makes it from its own rows; nothing here is normalised yet."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from gateway.core.claims import Identifier, PersonName, PostalAddress


@dataclass(frozen=True, slots=True)
class PatientRecord:
    """A patient of the practice."""

    id: str
    """In the EHR; unique in the index."""
    names: tuple[PersonName, ...] = ()
    """The current name first; previous ones and the name at birth by their ``kind``."""
    birth_date: date | None = None
    sex: str = ""
    identifiers: tuple[Identifier, ...] = ()
    """Record numbers with who assigned them."""
    phones: tuple[str, ...] = ()
    emails: tuple[str, ...] = ()
    direct_addresses: tuple[str, ...] = ()
    addresses: tuple[PostalAddress, ...] = ()
    active: bool = True
    deceased: bool = False
    merged_into: str = ""
    """The id of the record that took this one's place; empty: none did."""
