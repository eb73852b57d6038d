"""What ``match explain`` prints: decisions, conflicts and suggestions in plain words.

Takes the document that ``--json`` prints, so that both say the same.
"""

from __future__ import annotations

import json
from typing import Any

from gateway.cli.output import clean, counted, out, when
from gateway.core.audit import AuditEvent
from gateway.core.matching import EXPLANATIONS, DecisionKind, Ground

LINKED, UNLINKED, DUPLICATE = "message.linked", "message.unlinked", "message.duplicate_content"
UNDONE = "message.link_undone"
DECIDING = ("message.link*", UNLINKED, DUPLICATE)
"""The events of the audit log that tell what was decided; of the first kind is also a link that was undone."""
_WORDS = {
    DecisionKind.AUTOMATIC: "linked by the gateway",
    DecisionKind.SUGGESTED: "left to a person, with patients to choose from",
    DecisionKind.CONFLICT: "left to a person: a conflict",
    DecisionKind.UNLINKED: "left to a person: nothing points at a patient",
}
_NOW = {
    DecisionKind.AUTOMATIC: "link it to patient {}",
    DecisionKind.SUGGESTED: "leave it to a person, with patients to choose from",
    DecisionKind.CONFLICT: "leave it to a person: a conflict",
    DecisionKind.UNLINKED: "leave it to a person: nothing points at a patient",
}
_ACTIONS = {
    LINKED: "linked",
    UNLINKED: "left to a person",
    DUPLICATE: "not decided: a copy of a message that was filed before",
    UNDONE: "the link{} was taken back",
}
_CANDIDATE = {
    "family": "family name",
    "given": "given name",
    "birth_date": "birth date",
    "sex": "sex",
    "contact": "a contact is the same",
    "identifier": "record number the same",
    "direct": "named by a Direct address",
    "other_identifier": "another record number",
    "inactive": "record not active",
    "deceased": "deceased",
    "merged": "merged",
}
_AGREEMENTS = {
    "equal": "the same",
    "near": "nearly the same",
    "compatible": "the same in part",
    "previous": "a previous one",
}


def past_decision(event: AuditEvent) -> dict[str, Any]:
    """What an event of the audit log says of a decision on the message."""
    detail: dict[str, Any] = json.loads(event.detail)
    rule = str(detail.get("rule", ""))
    ground = rule.partition(":")[2]
    decision = str(detail.get("decision", ""))
    return {
        "at": event.at,
        "actor": event.actor,
        "action": event.action,
        "decision": decision,
        "rule": rule,
        "explanation": EXPLANATIONS[Ground(ground)] if ground in set(Ground) else "",
        "patient": str(detail.get("patient", "")),
        "points": detail.get("points"),
        "candidates": detail.get("candidates", []),
        "inputs": {
            name: value
            for name, value in detail.items()
            if name not in {"decision", "rule", "patient", "points", "candidates"}
        },
    }


def print_explanation(document: dict[str, Any]) -> None:
    """Print all of it."""
    patients = document["patients"]
    _line(f"message {document['id']} from {document['sender'] or 'nobody who was verified'}")
    charts = ", ".join(_who(one, patients) for one in document["charts"])
    _line(f"on the chart of: {charts or 'nobody'}")
    out("\nWHAT WAS DECIDED")
    for past in document["then"]:
        _print_past(past, patients)
    if not document["then"]:
        out("  nothing yet: the message waits for its turn, or is a copy of one that was decided before")
    _print_message(document)
    _print_now(document["now"], patients)


def _print_past(past: dict[str, Any], patients: dict[str, Any]) -> None:
    who = "the gateway" if past["actor"] == "gateway" else past["actor"]
    words = _WORDS.get(past["decision"]) if past["decision"] in set(DecisionKind) else None
    if words is None:
        words = _ACTIONS.get(past["action"], past["action"])
    patient = f" to patient {_who(past['patient'], patients)}" if past["patient"] else ""
    told = words.format(patient) if "{}" in words else words + patient
    _line(f"  {when(past['at'])}  {told}, by {who}")
    if past["explanation"]:
        _line(f"    why: {past['explanation']}")
    if past["rule"]:
        _line(f"    rule: {past['rule']}" + (f", {past['points']:g} points" if past["points"] is not None else ""))
    if between := past["inputs"].get("between"):
        _line(f"    contradicted: {'; '.join(between)}")
    for one in past["candidates"]:
        _line(f"    {_who(one['patient'], patients)}: {one['points']:g} points; {_stood(one)}")


def _stood(one: dict[str, Any]) -> str:
    told = []
    for name, words in _CANDIDATE.items():
        value = one.get(name)
        if value:
            told.append(words if value is True else f"{words} {_AGREEMENTS.get(value, value)}")
    return ", ".join(told)


def _print_message(document: dict[str, Any]) -> None:
    out("\nWHAT THE MESSAGE SAYS")
    sources = [f"{one['who']}{', part ' + one['part'] if one['part'] else ''}" for one in document["claims"]]
    _line(f"  the patient is named by: {'; '.join(sources) or 'nobody'}")
    for one in document["conflicts"]:
        _line(f"  CONFLICT  {one['text']}")
    if not document["conflicts"]:
        out("  no source contradicts another one")
    for problem in document["problems"]:
        _line(f"  not read: {problem['detail']}")
    for entry in document["address_book"]:
        marks = [*([] if entry["confirmed"] else ["nobody confirmed it"]), *(["shared"] if entry["shared"] else [])]
        _line(f"  the sender's address is documented for patient {_who(entry['patient_id'], document['patients'])}"
              + (f" ({', '.join(marks)})" if marks else ""))  # fmt: skip
    _line(f"  in full: direct-gateway message evidence {document['id']}")


def _print_now(now: dict[str, Any], patients: dict[str, Any]) -> None:
    out("\nNOW")
    patient = _who(now["patient"], patients) if now["patient"] else ""
    _line(f"  the gateway would {_NOW[DecisionKind(now['decision'])].format(patient)}")
    _line(f"    why: {now['explanation']}")
    _line(f"    rule: {now['rule']}")
    if now["taken_back"]:
        out("    but a person has taken a link of this message back: it is never linked by itself again")
    if now["differs"]:
        out("    NOTE: that is not what it did: look at the message again")
    found = now["suggestions"]
    told = f"{counted(len(found), 'patient')} who may be meant, the likeliest first:"
    out(f"\n  {told}" if found else "\n  no patient is like that")
    for number, one in enumerate(found, 1):
        _line(f"  {number}. {_who(one['patient'], patients)}: {one['points']:g} points")
        _line(f"     {', '.join(one['why'])}")
        for warning in one["warnings"]:
            _line(f"     ! {warning}")


def _who(patient_id: str, patients: dict[str, Any]) -> str:
    """A patient as somebody would call him: id, name, birth date."""
    one = patients.get(patient_id)
    if one is None:
        return patient_id
    name = ", ".join(part for part in (one["family"], one["given"]) if part)
    born = one["birth_date"]
    return " ".join(filter(None, (patient_id, f"({name}" + (f", born {born})" if born else ")") if name else "")))


def _line(text: str) -> None:
    out(clean(text))
