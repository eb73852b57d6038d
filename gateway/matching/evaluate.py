"""Try the policy on labelled data: is the right patient found, and is a wrong one ever linked?

For each question the findings, the decision and the suggestions are made exactly as for a message whose one document
says what the question says; the sender is nobody whom the address book knows. An automatic link is wrong when it goes
to anybody but the right patient; where the patient is not in the registry, every one is.

Guarantees: pure; the same data give the same numbers, but for the times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from gateway.core.matching import DecisionKind, decide
from gateway.matching.index import PatientIndex
from gateway.matching.judge import SUGGESTED, findings, suggestions
from gateway.matching.labelled import Labelled


class Policy(StrEnum):
    """What a mailbox allows."""

    AUTO = "auto"
    """Exact evidence links, demographics with a contact too."""
    SUGGEST = "suggest"
    """Nothing links by itself; patients are suggested. The default of a mailbox."""


@dataclass(slots=True)
class ClassResult:
    """The questions of one mutation class."""

    mutation: str
    count: int = 0
    registered: int = 0
    """Questions whose patient is in the registry."""
    right_first: int = 0
    right_in_top5: int = 0
    automatic_right: int = 0
    automatic_wrong: int = 0


@dataclass(frozen=True, slots=True)
class WrongLink:
    """A question that was linked wrongly. Ids only."""

    query_id: str
    mutation: str
    linked_to: str
    true_patient_id: str
    rule: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The result."""

    registry: int
    queries: int
    policy: Policy
    classes: tuple[ClassResult, ...]
    """In the order in which the classes first appear."""
    wrong: tuple[WrongLink, ...]
    grounds: dict[str, int]
    """How often each rule was the reason of the decision."""
    unknown_ids: int
    """Questions whose right patient is not in the registry although one is named; nothing may be linked for them."""
    milliseconds: dict[str, float] = field(default_factory=dict)
    """p50, p95 and p99 of the time for one question: decision and suggestions."""


def evaluate(
    index: PatientIndex, queries: Sequence[Labelled], policy: Policy, clock: Callable[[], float]
) -> Evaluation:
    """Ask every question.

    Args:
        index: the patients of the registry.
        queries: the questions; at least one.
        policy: what is tried.
        clock: seconds that never go back, as ``time.perf_counter``.
    """
    classes: dict[str, ClassResult] = {}
    wrong: list[WrongLink] = []
    grounds: dict[str, int] = {}
    times: list[float] = []
    allowed = policy is Policy.AUTO
    for query in queries:
        began = clock()
        decision = decide("", [], {}, automatic=allowed, demographics=allowed, findings=findings(index, query.evidence))
        shown = [hit.patient_id for hit in suggestions(index, query.evidence, SUGGESTED).hits]
        times.append(clock() - began)
        result = classes.setdefault(query.mutation, ClassResult(query.mutation))
        result.count += 1
        right = query.true_patient_id if query.true_patient_id in index else ""
        if right:
            result.registered += 1
            result.right_first += shown[:1] == [right]
            result.right_in_top5 += right in shown
        grounds[decision.rule] = grounds.get(decision.rule, 0) + 1
        if decision.kind is DecisionKind.AUTOMATIC:
            linked = decision.patient_id or ""
            if linked == right:
                result.automatic_right += 1
            else:
                result.automatic_wrong += 1
                wrong.append(WrongLink(query.id, query.mutation, linked, query.true_patient_id, decision.rule))
    return Evaluation(
        registry=len(index),
        queries=len(queries),
        policy=policy,
        classes=tuple(classes.values()),
        wrong=tuple(wrong),
        grounds=dict(sorted(grounds.items())),
        unknown_ids=sum(bool(query.true_patient_id) and query.true_patient_id not in index for query in queries),
        milliseconds={f"p{percent}": round(percentile(times, percent) * 1000, 3) for percent in (50, 95, 99)},
    )


def percentile(values: Sequence[float], percent: int) -> float:
    """The smallest value that at least so many percent do not exceed (nearest rank).

    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError("no values")
    ranked = sorted(values)
    return ranked[max(0, -(-len(ranked) * percent // 100) - 1)]
