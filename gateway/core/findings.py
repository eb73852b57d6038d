"""How the patients of the index stand to what a message says: what the rule of automatic links is given.

Guarantees: pure values without a name, a date or a number of anybody; they may be stored with a decision, so that it
can be explained and made again (matching policy 8).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from gateway.core.claims import Contradiction


class Agreement(StrEnum):
    """How two sides agree in one field, the best first."""

    EQUAL = "equal"
    PREVIOUS = "previous"
    """A family name that is the current one of the one side and a previous one of the other."""
    COMPATIBLE = "compatible"
    """One side says less, and nothing else: an initial, a nickname, one of two surnames, a year."""
    NEAR = "near"
    """Slips of the keyboard lie between them."""
    UNKNOWN = "unknown"
    """One side says nothing, or a placeholder."""
    DIFFERENT = "different"


@dataclass(frozen=True, slots=True)
class Comparison:
    """How one patient stands to everything that a message says; each agreement is the worst of all claims."""

    patient_id: str
    points: float
    family: Agreement
    given: Agreement
    birth_date: Agreement
    sex: Agreement
    contact: bool = False
    """Telephone, address or Direct address are equal, and are evidence."""
    identifier: bool = False
    """A record number is equal, and its assigner known."""
    direct: bool = False
    """What is in the message (not who sent it) names a Direct address that is documented for this patient."""
    other_identifier: bool = False
    """A claim has another record number of an assigner that has given this patient one."""
    active: bool = True
    deceased: bool = False
    merged: bool = False

    @property
    def contradicts(self) -> bool:
        """Whether this cannot be the patient: another birth date, family or given name, sex or record number."""
        return (
            Agreement.DIFFERENT in {self.family, self.given, self.birth_date, self.sex}
            or self.birth_date is Agreement.NEAR
            or self.other_identifier
        )

    @property
    def has_exact_number(self) -> bool:
        """Whether record number, birth date and family name are exact."""
        return (
            self.identifier
            and self.birth_date is Agreement.EQUAL
            and self.family in _EXACT_FAMILY
            and self.given in {Agreement.EQUAL, Agreement.COMPATIBLE, Agreement.UNKNOWN}
        )

    @property
    def has_exact_demographics(self) -> bool:
        """Whether both names, the birth date and a contact are exact."""
        return (
            self.contact
            and self.birth_date is Agreement.EQUAL
            and self.family in _EXACT_FAMILY
            and self.given is Agreement.EQUAL
        )


_EXACT_FAMILY = frozenset({Agreement.EQUAL, Agreement.PREVIOUS})


@dataclass(frozen=True, slots=True)
class Findings:
    """What a message says of its patient, held against the patients."""

    contradictions: tuple[Contradiction, ...] = ()
    """Between two claims (:func:`gateway.core.claims.contradictions`)."""
    givens_differ: bool = False
    """Two claims name persons of different given names (:func:`gateway.core.claims.given_names_differ`)."""
    is_complete: bool = True
    """False when a claim may have gone unread."""
    all_compared: bool = True
    """False when so many patients share a trait with the message that only the likeliest were compared."""
    comparisons: tuple[Comparison, ...] = ()
    """Every patient who may be meant, the likeliest first, and every patient whom the address book names for the
    sender. Empty when the message says nothing of a patient."""
