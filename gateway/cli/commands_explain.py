"""``match explain``: why a message is on the chart where it is, or on none, and whom it may be about.

What was decided is told from the audit log, which has every decision with what it was made on; what would be decided
now is made anew from the verified bytes, the whole patient index and the address book. Nothing is changed. It shows
what the message says and who the practice's patients are, so that reading and search are both in the audit log before
anything is printed. All patients are read into memory for it (some seconds for 50,000).
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from gateway.cli.commands_evidence import content_of
from gateway.cli.explain_report import DECIDING, UNDONE, past_decision, print_explanation
from gateway.cli.output import print_json
from gateway.cli.session import FINDINGS, OK, SubCommands, actor, with_services
from gateway.core.audit import AuditQuery
from gateway.core.matching import Decision, DecisionKind, decide

if TYPE_CHECKING:
    from gateway.core.claims import Evidence
    from gateway.matching.explain import Conflict, Suggestion
    from gateway.ports import AddressBookEntry, Patient, StoredContent, UnitOfWork
    from gateway.services import Services

MOST_EVENTS = 1_000


def register(group: SubCommands) -> None:
    """Add the command to ``match``."""
    explain = group.add(
        "explain",
        "tell why a message is on that chart or on none, and whom it may be about",
        "Three parts. WHAT WAS DECIDED: each decision of the gateway or of a person, when, by which rule, and how the\n"
        "patients stood to the message then. WHAT THE MESSAGE SAYS: who names the patient in it, and which of them\n"
        "contradict each other. NOW: what the gateway would decide today, and the five likeliest patients, each with\n"
        "what agrees and with what to mind (a twin, somebody at the same address, a record that is not in use).\n"
        "9 points and more are strong evidence; no sum of points links a message (docs/matching.md). To put the\n"
        "message on a chart: link add MESSAGE PATIENT. MESSAGE may be shortened to any beginning that is unique.\n"
        "Nothing is changed. That you looked is written to the audit log.\n"
        "Status 0: nothing to look at. Status 1: sources contradict each other or the chart, or the gateway would\n"
        "decide otherwise today (a message that it linked would wait, or the other way round); or there is no such\n"
        "verified message.",
        "match explain 01J9ABCD\nmatch explain 01J9ABCD --json",
        run=_explain,
    )
    explain.add_argument("message", metavar="MESSAGE", help="message id, or its unique beginning")
    explain.add_argument("--json", action="store_true", help="print as JSON")


@dataclass(frozen=True, slots=True)
class Known:
    """What the store has of a message."""

    content: StoredContent
    state: str
    charts: tuple[str, ...]
    """Ids of the patients on whose charts it is."""
    past: list[dict[str, Any]]
    entries: list[AddressBookEntry]
    documented: dict[str, Patient]


@dataclass(frozen=True, slots=True)
class Now:
    """What would be decided now."""

    decision: Decision
    evidence: Evidence
    conflicts: tuple[Conflict, ...]
    suggestions: tuple[Suggestion, ...]
    patients: dict[str, Patient]
    """Whom the suggestions and the decisions name, by id."""


def _explain(args: argparse.Namespace) -> int:
    async def work(services: Services) -> int:
        known = await services.store.read(lambda tx: _known(tx, args.message))
        now = await services.store.read(lambda tx: _now(services, tx, known))
        differs = _differs(known, now.decision)
        await _record(services, known.content.message_id, now)
        document = _document(known, now, differs=differs)
        if args.json:
            print_json(document)
        else:
            print_explanation(document)
        return FINDINGS if differs or now.conflicts or now.decision.kind is DecisionKind.CONFLICT else OK

    return with_services(args, work)


def _known(tx: UnitOfWork, wanted: str) -> Known:
    from gateway.pipeline.link import documented  # noqa: PLC0415 - see gateway.cli.session

    content = content_of(tx, wanted)
    queries = (
        AuditQuery(subject=content.message_id, action=one, ascending=True, limit=MOST_EVENTS) for one in DECIDING
    )
    events = sorted((event for query in queries for event in tx.audit.find(query)), key=lambda event: event.at)
    entries, patients = documented(tx, content.sender)
    return Known(
        content,
        str(tx.messages.state(content.message_id)),
        tuple(link.patient_id for link in tx.links.for_message(content.message_id)),
        [past_decision(event) for event in events],
        entries,
        patients,
    )


def _now(services: Services, tx: UnitOfWork, known: Known) -> Now:
    from gateway.matching.explain import conflicts, suggested  # noqa: PLC0415 - see gateway.cli.session
    from gateway.matching.index import PatientIndex  # noqa: PLC0415
    from gateway.matching.judge import findings  # noqa: PLC0415
    from gateway.weighing import every_record, link_policy, says_more  # noqa: PLC0415

    evidence = services.evidence(known.content.content, known.content.sender)
    charts = services.settings.charts
    index = PatientIndex(every_record(lambda work: work(tx), charts.record_assigners))
    policy = link_policy(charts)
    decision = decide(
        known.content.sender,
        known.entries,
        known.documented,
        automatic=policy.allows(known.content.delivered_to),
        numbers=policy.numbers,
        demographics=policy.demographics,
        findings=findings(index, evidence, known.documented.keys()) if says_more(evidence) else None,
    )
    found = suggested(index, evidence)
    named = {one.patient_id for one in found} | {*known.charts, *known.documented, decision.patient_id or ""}
    named |= {one["patient"] for past in known.past for one in (past, *past["candidates"])}
    return Now(
        decision,
        evidence,
        conflicts(evidence),
        found,
        {patient.id: patient for patient in tx.patients.several(named)},
    )


def _differs(known: Known, now: Decision) -> bool:
    """Whether the gateway would not link now what it did, or would link what it did not."""
    by_rule = {past["patient"] for past in known.past if past["decision"] == DecisionKind.AUTOMATIC}
    linked = by_rule & set(known.charts)
    if now.kind is DecisionKind.AUTOMATIC:
        return now.patient_id not in known.charts and not _taken_back(known)
    return bool(linked)


def _taken_back(known: Known) -> bool:
    """Whether a person has undone a link of the message: the gateway makes none by itself any more."""
    return any(past["action"] == UNDONE for past in known.past)


async def _record(services: Services, message_id: str, now: Now) -> None:
    """Write down that somebody read the message and searched the patients, before anything is shown."""
    at, who = services.clock.now(), actor()
    shown = len(now.suggestions)

    def work(tx: UnitOfWork) -> None:
        counts = {"claims": len(now.evidence.claims), "problems": len(now.evidence.problems), "shown": shown}
        tx.audit.add(at, who, "match.explain", message_id, counts)
        tx.audit.add(at, who, "patient.search", "", {"shown": shown, "searched": True, "message": message_id})

    await services.store.write(work, urgent=True)


def _document(known: Known, now: Now, *, differs: bool) -> dict[str, Any]:
    from gateway.matching.explain import SOURCES  # noqa: PLC0415 - see gateway.cli.session

    return {
        "id": known.content.message_id,
        "state": known.state,
        "sender": known.content.sender,
        "charts": list(known.charts),
        "then": known.past,
        "claims": [
            {
                "source": str(claim.source),
                "strength": str(claim.strength),
                "part": claim.path,
                "who": SOURCES[claim.source],
            }
            for claim in now.evidence.claims
        ],
        "is_complete": now.evidence.is_complete,
        "problems": [asdict(problem) for problem in now.evidence.problems],
        "conflicts": [asdict(one) for one in now.conflicts],
        "address_book": [asdict(entry) for entry in known.entries],
        "now": {
            "decision": str(now.decision.kind),
            "rule": now.decision.rule,
            "explanation": now.decision.explanation,
            "patient": now.decision.patient_id,
            "points": now.decision.points,
            "differs": differs,
            "taken_back": _taken_back(known),
            "suggestions": [
                {
                    "patient": one.patient_id,
                    "points": one.points,
                    "why": list(one.texts),
                    "warnings": list(one.warnings),
                    "reasons": [asdict(reason) for reason in one.reasons],
                }
                for one in now.suggestions
            ],
        },
        "patients": {patient_id: asdict(patient) for patient_id, patient in sorted(now.patients.items())},
    }
