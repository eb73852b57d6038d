"""The likeliest patients of a message in words for whoever decides, and what contradicts what.

Guarantees: pure. What is said here names sources and fields, and where two sources contradict each other what each of
them says: it is for the eyes of somebody who may read the message, and for no log.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gateway.core.claims import Claim, Contradiction, Disagreement, Evidence, Source, contradictions, given_names_differ
from gateway.core.findings import Agreement
from gateway.matching.compare import Match, Reason, match
from gateway.matching.index import PatientIndex
from gateway.matching.judge import SUGGESTED, suggestions
from gateway.matching.profile import of_claim
from gateway.matching.search import Hit

SOURCES = {
    Source.SIGNED_FROM: "the verified sender",
    Source.DIRECT_CONTEXT: "the Direct Context of the message",
    Source.CDA_HEADER: "the clinical document (C-CDA)",
    Source.XDM_METADATA: "the package (XDM metadata)",
    Source.HL7V2_PID: "the HL7 v2 message (PID)",
    Source.FHIR_PATIENT: "the FHIR Patient",
}
_HOW = {
    "equal": "{} the same",
    "near": "{} nearly the same",
    "different": "{} different",
    "previous name": "{} the same as a previous one",
    "part of it": "{} the same in part",
    "sounds alike": "{} alike in sound",
    "nickname": "{} a usual short form",
    "initial": "{} the same as far as the initial goes",
    "middle name": "{} the same but for a middle name",
    "suffix": "{} with another suffix (Jr, Sr)",
    "swapped": "given and family name exchanged",
    "day and month swapped": "{} with day and month exchanged",
    "year near": "{} the same but for the year",
    "other area code": "{} the same but for the area code",
    "other unit": "{} the same but for the apartment",
    "other ZIP": "{} the same but for the ZIP",
    "equal, assigner unknown": "{} the same, though nobody knows who assigned it",
}
_ALIKE = {
    "similar patient at the same address": "lives at the same address and has another given name (twin, sibling?)",
    "similar patient born on the same day": "has the same family name and birth date, and another given name (twin?)",
    "patient of the same name": "has the same name",
}
_MOST_OF_A_KIND = 10
"""Conflicts in one field that are told one by one."""
MOST_SHOWN_CHARS = 200
"""Of what a source says in one field."""
_FIELDS = {Disagreement.BIRTH_DATE: "birth date", Disagreement.FAMILY: "family name", Disagreement.SEX: "sex"}


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two sources that cannot both be right, or one that contradicts itself (``right`` is empty)."""

    field: str
    """A word of :class:`Disagreement`, or ``given``; ``more`` for those that are not told one by one."""
    left: str
    """The word of a :class:`Source`, with its part of the message where it has one: ``cda_header 2/zip:3``."""
    right: str
    text: str


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A patient who may be meant."""

    patient_id: str
    points: float
    reasons: tuple[Reason, ...]
    texts: tuple[str, ...]
    """The reasons in words, what speaks for the patient first."""
    warnings: tuple[str, ...]
    """What somebody should know before he chooses: similar patients, a record that is not in use, a source that says
    otherwise."""


def suggested(index: PatientIndex, evidence: Evidence, limit: int = SUGGESTED) -> tuple[Suggestion, ...]:
    """The likeliest patients, the likeliest first."""
    found = suggestions(index, evidence, limit)
    return tuple(_suggestion(index, hit, evidence.claims) for hit in found.hits)


def _suggestion(index: PatientIndex, hit: Hit, claims: Sequence[Claim]) -> Suggestion:
    ranked = sorted(hit.reasons, key=lambda reason: reason.how == "different")
    return Suggestion(
        hit.patient_id, hit.points, hit.reasons, tuple(map(in_words, ranked)), tuple(_warnings(index, hit, claims))
    )


def in_words(reason: Reason) -> str:
    """A reason as a person would say it: ``family name the same``."""
    return _HOW.get(reason.how, f"{{}}: {reason.how}").format(reason.field)


def _warnings(index: PatientIndex, hit: Hit, claims: Sequence[Claim]) -> list[str]:
    found = []
    if hit.merged_into:
        found.append(f"this record was merged into that of patient {hit.merged_into}: look there")
    if hit.deceased:
        found.append("recorded as deceased")
    if not hit.active and not hit.merged_into:
        found.append("the record is not active")
    entry = index.entry(hit.patient_id)
    said: dict[str, None] = {}
    for claim in claims:
        for field in _otherwise(match(of_claim(claim), entry.profile)):
            said[f"{SOURCES[claim.source]} gives another {field}"] = None
    found += said
    found += [f"mind patient {other.patient_id}, who {_ALIKE.get(other.why, other.why)}" for other in hit.alike]
    return found


def _otherwise(matched: Match) -> list[str]:
    """The fields in which a source says otherwise than the chart."""
    fields = {
        "family name": matched.family,
        "given name": matched.given,
        "birth date": matched.birth_date,
        "sex": matched.sex,
    }
    near = ["birth date"] if matched.birth_date is Agreement.NEAR else []
    return [name for name, agreement in fields.items() if agreement is Agreement.DIFFERENT] + near


def conflicts(evidence: Evidence) -> tuple[Conflict, ...]:
    """What the sources of a message say that cannot be of one person: some of each kind, and how many more there are.

    Sixty-four patients contradict each other in thousands of ways, and each of them may say very much.
    """
    found = contradictions(evidence.claims)
    kinds: dict[Disagreement, list[Contradiction]] = {}
    for one in found:
        kinds.setdefault(one.field, []).append(one)
    told = [_conflict(one) for several in kinds.values() for one in several[:_MOST_OF_A_KIND]]
    left = len(found) - sum(len(several[:_MOST_OF_A_KIND]) for several in kinds.values())
    told = list(dict.fromkeys(told))
    if given_names_differ(evidence.claims):
        named = [claim for claim in evidence.claims if any(name.first for name in claim.names)]
        text = "; ".join(f"{SOURCES[claim.source]} says {_given(claim)}" for claim in named)
        told.append(Conflict("given", _place(named[0]), _place(named[-1]), f"given name: {text}"))
    if left:
        told.append(Conflict("more", "", "", f"and {left} more"))
    return tuple(told)


def _conflict(found: Contradiction) -> Conflict:
    left, right = found.left, found.right
    if found.field is Disagreement.INTEGRITY:
        text = f"{SOURCES[left.source]} is not the document that its package describes"
    elif found.field is Disagreement.SEVERAL_PATIENTS:
        text = f"{SOURCES[left.source]} names more than one patient"
    else:
        text = (
            f"{_FIELDS[found.field]}: {SOURCES[left.source]} says {_value(found.field, left)}, "
            f"{SOURCES[right.source]} says {_value(found.field, right)}"
        )
    return Conflict(found.field.value, _place(left), "" if left is right else _place(right), text)


def _place(claim: Claim) -> str:
    return f"{claim.source} {claim.path}".rstrip()


def _value(field: Disagreement, claim: Claim) -> str:
    if field is Disagreement.BIRTH_DATE:
        return claim.birth_date.isoformat() if claim.birth_date else claim.birth_part
    if field is Disagreement.SEX:
        return claim.sex
    return _or(name.family for name in claim.names if name.family)


def _given(claim: Claim) -> str:
    return _or(name.first for name in claim.names if name.first)


def _or(values: Iterable[str]) -> str:
    told = " or ".join(dict.fromkeys(values))
    return told if len(told) <= MOST_SHOWN_CHARS else f"{told[:MOST_SHOWN_CHARS]}..."
