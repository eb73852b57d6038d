"""May this message go onto a chart without a person? The rule, as a pure function.

Guarantees: a link is automatic only when the verified sender is documented for exactly one patient, a human or
the EHR's own file confirmed that, nothing says that the address is shared, and the patient is active and alive
(S41, S42, CX-12, CX-13). Everything else waits for a person. Demographics never link by themselves (CX-12).

The order of the checks is the order in which a person would want to hear the reason. ``Decision.rule`` is kept
with each link and in the audit log, together with the version, so that a decision can be explained and replayed
later. ``Decision.explanation`` is plain words without a name, an address or an id: it may stand in a log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

RULE_VERSION = "address-book-1"
"""Changes whenever the same input may lead to another decision."""


class DocumentedAddress(Protocol):
    """What the rule needs of an address book entry."""

    @property
    def address(self) -> str: ...
    @property
    def patient_id(self) -> str: ...
    @property
    def confirmed(self) -> bool: ...
    @property
    def shared(self) -> bool: ...


class PatientStanding(Protocol):
    """What the rule needs of a patient."""

    @property
    def active(self) -> bool: ...
    @property
    def deceased(self) -> bool: ...


class DecisionKind(StrEnum):
    """What to do with the message."""

    AUTOMATIC = "automatic"
    UNLINKED = "unlinked"


class Ground(StrEnum):
    """Why. Exactly one of them, ``SOLE_PATIENT``, links."""

    SOLE_PATIENT = "sole_patient"
    NO_SENDER = "no_verified_sender"
    NOT_DOCUMENTED = "not_documented"
    SHARED = "shared_address"
    UNCONFIRMED = "unconfirmed"
    UNKNOWN_PATIENT = "unknown_patient"
    DECEASED = "deceased"
    INACTIVE = "inactive"
    POLICY_OFF = "policy_off"


EXPLANATIONS: dict[Ground, str] = {
    Ground.SOLE_PATIENT: "The verified sender is documented for exactly one active patient.",
    Ground.NO_SENDER: "The message has no verified sender.",
    Ground.NOT_DOCUMENTED: "The sender's address is not documented for any patient.",
    Ground.SHARED: "The sender's address is documented for more than one patient.",
    Ground.UNCONFIRMED: "Nobody has confirmed that the sender's address belongs to the patient.",
    Ground.UNKNOWN_PATIENT: "The address book names a patient that is not in the patient index.",
    Ground.DECEASED: "The patient is recorded as deceased.",
    Ground.INACTIVE: "The patient's record is not active.",
    Ground.POLICY_OFF: "The match is exact, but automatic linking is switched off.",
}


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer. ``patient_id`` is set only when ``kind`` is automatic."""

    kind: DecisionKind
    patient_id: str | None
    rule: str
    """``RULE_VERSION:ground``."""
    explanation: str


def decide(
    sender: str,
    entries: Sequence[DocumentedAddress],
    patients: Mapping[str, PatientStanding],
    *,
    automatic: bool,
) -> Decision:
    """Decide for one accepted message.

    Args:
        sender: the verified Direct address of the sender; empty when nothing verified it.
        entries: what the address book holds for it; entries of other addresses are ignored.
        patients: the patients that the entries name, by id.
        automatic: False when the policy sends even an exact match to a person.
    """
    ground, patient_id = _examine(sender, entries, patients)
    if ground is Ground.SOLE_PATIENT and not automatic:
        ground = Ground.POLICY_OFF
    linked = ground is Ground.SOLE_PATIENT
    return Decision(
        DecisionKind.AUTOMATIC if linked else DecisionKind.UNLINKED,
        patient_id if linked else None,
        f"{RULE_VERSION}:{ground}",
        EXPLANATIONS[ground],
    )


def _examine(
    sender: str, entries: Sequence[DocumentedAddress], patients: Mapping[str, PatientStanding]
) -> tuple[Ground, str | None]:
    key = sender.strip().lower()
    if not key:
        return Ground.NO_SENDER, None
    # Both sides are folded here although both should come normalised: an entry that was overlooked for its
    # spelling could make a shared address look like one patient's own.
    documented = [entry for entry in entries if entry.address.strip().lower() == key]
    if not documented:
        return Ground.NOT_DOCUMENTED, None
    # An unconfirmed entry of a second patient is doubt enough, and so is a second patient who died.
    if any(entry.shared for entry in documented) or len({entry.patient_id for entry in documented}) > 1:
        return Ground.SHARED, None
    if not any(entry.confirmed for entry in documented):
        return Ground.UNCONFIRMED, None
    patient_id = documented[0].patient_id
    patient = patients.get(patient_id)
    if patient is None:
        return Ground.UNKNOWN_PATIENT, None
    if patient.deceased:
        return Ground.DECEASED, None
    if not patient.active:
        return Ground.INACTIVE, None
    return Ground.SOLE_PATIENT, patient_id
