"""May this message go onto a chart without a person? The rule, as a pure function.

Guarantees: a link is automatic only on one of three grounds (matching policy 3), and only where nothing that was said
of the patient contradicts anything else (matching policy 2), the patient is active, alive and not merged (matching
policy 7), and everything that the message says could be read:

* the verified sender is documented for exactly one patient, a human or the EHR's own file confirmed that, and nothing
  says that the address is shared (S41, S42, CX-12, CX-13);
* a record number whose assigner is known, with birth date and family name, all exact;
* given name, family name and birth date and one of telephone, address and Direct address, all exact, for one patient
  alone, the next one at least ``RUNNER_UP_POINTS`` lower, where the mailbox's policy allows it.

Everything else waits for a person, as a suggestion at most (matching policy 4). A name and a birth date alone never
link, whatever the policy says. What a sender who is documented for one patient sends is never put onto another
patient's chart, and mail from a shared address onto nobody's.

The order of the checks is the order in which a person would want to hear the reason. ``Decision.rule`` is kept
with each link and in the audit log, together with the version, so that a decision can be explained and replayed
later. ``Decision.explanation`` is plain words without a name, an address or an id: it may stand in a log.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from gateway.core.findings import Agreement, Comparison, Findings

RULE_VERSION = "address-book-1"
"""Of the decision by the address book alone. Changes whenever the same input may lead to another decision."""
EVIDENCE_RULE_VERSION = "evidence-1"
"""Of the decision that weighs what the message says as well; covers the comparison and its points too."""
RUNNER_UP_POINTS = 2.0
"""How far below the exact patient every other one must stand."""


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
    SUGGESTED = "suggested"
    """A person decides; there are patients to choose from."""
    CONFLICT = "conflict"
    """A person decides, and should know that the sources contradict each other or the chart."""
    UNLINKED = "unlinked"
    """A person decides; nothing points at a patient."""


class Ground(StrEnum):
    """Why. Three of them link: ``SOLE_PATIENT``, ``EXACT_NUMBER`` and ``EXACT_DEMOGRAPHICS``."""

    SOLE_PATIENT = "sole_patient"
    EXACT_NUMBER = "exact_record_number"
    EXACT_DEMOGRAPHICS = "exact_demographics"
    SOURCES_DISAGREE = "sources_disagree"
    CHART_DISAGREES = "chart_disagrees"
    OTHER_PATIENT = "other_patient"
    GIVEN_NAMES_DIFFER = "given_names_differ"
    NOT_ALL_READ = "not_all_read"
    TOO_MANY = "too_many"
    DOUBTFUL_NAME = "doubtful_name"
    SEVERAL_PATIENTS = "several_patients"
    RUNNER_UP = "runner_up"
    NOT_EXACT = "not_exact"
    MERGED = "merged"
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
    Ground.EXACT_NUMBER: "Record number, birth date and family name are exactly those of one active patient.",
    Ground.EXACT_DEMOGRAPHICS: "Names, birth date and a contact are exactly those of one active patient alone.",
    Ground.SOURCES_DISAGREE: "What the message says of its patient contradicts itself.",
    Ground.CHART_DISAGREES: "What the message says contradicts the chart of the patient whom sender or number name.",
    Ground.OTHER_PATIENT: "The sender is documented for one patient, and the message says that it is of another.",
    Ground.GIVEN_NAMES_DIFFER: "The sources in the message give different given names.",
    Ground.NOT_ALL_READ: "Not everything that the message says of its patient could be read and compared.",
    Ground.TOO_MANY: "So many patients share something with the message that not all were compared.",
    Ground.DOUBTFUL_NAME: "A name in the message is near the patient's, and not the same.",
    Ground.SEVERAL_PATIENTS: "The evidence is exact for more than one patient.",
    Ground.RUNNER_UP: "Another patient is nearly as likely.",
    Ground.NOT_EXACT: "There are similar patients, and none for whom the evidence is exact.",
    Ground.MERGED: "The patient's record was merged into another one.",
    Ground.NO_SENDER: "The message has no verified sender.",
    Ground.NOT_DOCUMENTED: "The sender's address is not documented for any patient.",
    Ground.SHARED: "The sender's address is documented for more than one patient.",
    Ground.UNCONFIRMED: "Nobody has confirmed that the sender's address belongs to the patient.",
    Ground.UNKNOWN_PATIENT: "The address book names a patient that is not in the patient index.",
    Ground.DECEASED: "The patient is recorded as deceased.",
    Ground.INACTIVE: "The patient's record is not active.",
    Ground.POLICY_OFF: "The match is exact, but the settings leave such a match to a person.",
}


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer. ``patient_id`` is set only when ``kind`` is automatic."""

    kind: DecisionKind
    patient_id: str | None
    rule: str
    """The version of the rule and the ground: ``address-book-1:sole_patient``."""
    explanation: str
    points: float | None = None
    """Of the linked patient, else of the likeliest one; None when nobody was compared."""


def decide(
    sender: str,
    entries: Sequence[DocumentedAddress],
    patients: Mapping[str, PatientStanding],
    *,
    automatic: bool,
    numbers: bool = True,
    demographics: bool = False,
    findings: Findings | None = None,
) -> Decision:
    """Decide for one accepted message.

    Args:
        sender: the verified Direct address of the sender; empty when nothing verified it.
        entries: what the address book holds for it; entries of other addresses are ignored.
        patients: the patients that the entries name, by id.
        automatic: False when the policy sends even an exact match to a person.
        numbers: whether the policy lets an exact record number link.
        demographics: whether it lets exact demographics link (the default of the policy is not to).
        findings: what the message says, held against the patients; None when nobody read it. What says nothing
            contradicts nothing: empty findings decide as None does.
    """
    ground, patient_id = _examine(sender, entries, patients)
    version = RULE_VERSION
    if findings is not None and findings != Findings():
        version = EVIDENCE_RULE_VERSION
        documented = {entry.patient_id for entry in _documented(sender, entries)}
        ground, patient_id = _weigh(findings, ground, patient_id, documented)
    allowed = {Ground.SOLE_PATIENT: True, Ground.EXACT_NUMBER: numbers, Ground.EXACT_DEMOGRAPHICS: demographics}
    if ground in LINKING and not (automatic and allowed[ground]):
        ground = Ground.POLICY_OFF
    linked = patient_id if ground in LINKING else None
    return Decision(
        _kind(ground, findings), linked, f"{version}:{ground}", EXPLANATIONS[ground], _points(findings, patient_id)
    )


LINKING = frozenset({Ground.SOLE_PATIENT, Ground.EXACT_NUMBER, Ground.EXACT_DEMOGRAPHICS})
"""The grounds that link."""
_CONFLICTS = frozenset({Ground.SOURCES_DISAGREE, Ground.CHART_DISAGREES, Ground.OTHER_PATIENT})


def _kind(ground: Ground, findings: Findings | None) -> DecisionKind:
    if ground in LINKING:
        return DecisionKind.AUTOMATIC
    if ground in _CONFLICTS:
        return DecisionKind.CONFLICT
    return DecisionKind.SUGGESTED if findings is not None and findings.comparisons else DecisionKind.UNLINKED


def _points(findings: Findings | None, patient_id: str | None) -> float | None:
    if findings is None or not findings.comparisons:
        return None
    chosen = [one.points for one in findings.comparisons if one.patient_id == patient_id]
    return chosen[0] if chosen else findings.comparisons[0].points


def _weigh(
    findings: Findings, book: Ground, documented_for: str | None, documented: Collection[str]
) -> tuple[Ground, str | None]:
    """What the claims make of the answer ``book`` of the address book."""
    if findings.contradictions:
        return Ground.SOURCES_DISAGREE, None
    if findings.givens_differ:
        return Ground.GIVEN_NAMES_DIFFER, None
    if not findings.is_complete:
        return Ground.NOT_ALL_READ, None
    exact, ground = _exact(findings)
    if book is Ground.SOLE_PATIENT:
        return _hold_against_sender(findings, documented_for, exact)
    if book not in {Ground.NO_SENDER, Ground.NOT_DOCUMENTED, Ground.UNCONFIRMED}:
        # Shared by a family, or documented for somebody who died or left: no other evidence mends that.
        return book, None
    if exact is not None and documented and exact.patient_id not in documented:
        return Ground.OTHER_PATIENT, None
    if not findings.comparisons:
        return book, None
    if not findings.all_compared:
        return Ground.TOO_MANY, None
    return ground, exact.patient_id if exact and ground in LINKING else None


def _hold_against_sender(
    findings: Findings, patient_id: str | None, exact: Comparison | None
) -> tuple[Ground, str | None]:
    if exact is not None and exact.patient_id != patient_id:
        return Ground.OTHER_PATIENT, None
    # Somebody else's number is in the message: it need not agree in anything else to be a reason to ask.
    if any(one.identifier and one.patient_id != patient_id for one in findings.comparisons):
        return Ground.OTHER_PATIENT, None
    own = next((one for one in findings.comparisons if one.patient_id == patient_id), None)
    if own is None:
        return Ground.NOT_ALL_READ, None
    if not own.direct and any(one.direct for one in findings.comparisons):
        # It is addressed as somebody else's, whatever it leaves out.
        return Ground.OTHER_PATIENT, None
    if any(one.has_exact_demographics and one.points > own.points and not one.merged for one in findings.comparisons):
        # A namesake born on the same day, whose telephone or address the document has.
        return Ground.OTHER_PATIENT, None
    if own.contradicts:
        return Ground.CHART_DISAGREES, None
    if Agreement.NEAR in {own.family, own.given}:
        # A twin who writes from the sibling's address may differ in no more than a letter.
        return Ground.DOUBTFUL_NAME, None
    standing = _standing(own)
    return (standing, None) if standing else (Ground.SOLE_PATIENT, patient_id)


def _exact(findings: Findings) -> tuple[Comparison | None, Ground]:
    """The one patient for whom the evidence is exact, and what follows from it; or nobody, and why."""
    numbered = [one for one in findings.comparisons if one.identifier]
    if len(numbered) > 1:
        return None, Ground.SEVERAL_PATIENTS
    if numbered and numbered[0].contradicts:
        return None, Ground.CHART_DISAGREES
    if numbered and numbered[0].has_exact_number:
        return numbered[0], _standing(numbered[0]) or Ground.EXACT_NUMBER
    exact = [one for one in findings.comparisons if one.has_exact_demographics]
    if not exact:
        return None, Ground.NOT_EXACT
    if len(exact) > 1:
        return None, Ground.SEVERAL_PATIENTS
    chosen = exact[0]
    if chosen.contradicts or (numbered and numbered[0] is not chosen):
        return None, Ground.CHART_DISAGREES
    if any(one.points > chosen.points - RUNNER_UP_POINTS for one in findings.comparisons if one is not chosen):
        return chosen, Ground.RUNNER_UP
    return chosen, _standing(chosen) or Ground.EXACT_DEMOGRAPHICS


def _standing(one: Comparison) -> Ground | None:
    """Why the patient is shown and never linked by itself; None: there is no reason."""
    if one.merged:
        return Ground.MERGED
    if one.deceased:
        return Ground.DECEASED
    return None if one.active else Ground.INACTIVE


def _documented(sender: str, entries: Sequence[DocumentedAddress]) -> list[DocumentedAddress]:
    # Both sides are folded here although both should come normalised: an entry that was overlooked for its
    # spelling could make a shared address look like one patient's own.
    key = sender.strip().lower()
    return [entry for entry in entries if key and entry.address.strip().lower() == key]


def _examine(
    sender: str, entries: Sequence[DocumentedAddress], patients: Mapping[str, PatientStanding]
) -> tuple[Ground, str | None]:
    if not sender.strip():
        return Ground.NO_SENDER, None
    documented = _documented(sender, entries)
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
