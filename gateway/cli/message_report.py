"""``message show`` for people: the verdict and its evidence, as the store has them."""

from __future__ import annotations

from typing import Any

from gateway.cli.output import out, print_record, print_table, when
from gateway.core.verdict import REPAIRS, Reason


def repair_of(verdict: dict[str, Any]) -> str:
    """Return the repair that the stored verdict's reason needs, or the empty string."""
    try:
        return REPAIRS[Reason(verdict.get("reason", ""))]
    except ValueError:
        return ""


def print_message(document: dict[str, Any]) -> None:
    """Print the document that ``message show`` makes of a message: what is known of it, without its content."""
    verdict = document["verdict"]
    signer = verdict.get("signer") or {}
    mail_from = document["mail_from"]
    pairs = [
        ("id", document["id"]),
        ("state", document["state"]),
        ("received", when(document["received_at"])),
        ("from host", f"{document['peer'] or 'local'} ({document['source']})"),
        ("envelope from", "<> (null sender)" if mail_from == "" else mail_from or "no envelope"),
        ("envelope to", ", ".join(document["recipients"])),
        ("raw bytes", f"{document['raw_size_bytes']}, sha256 {document['raw_sha256']}"),
    ]
    if verdict:
        reason, detail = str(verdict.get("reason", "")), str(verdict.get("detail") or "")
        pairs += [
            ("verdict", "accepted" if reason == Reason.OK else "rejected"),
            ("reason", reason + (f": {detail}" if detail else "")),
        ]
        if document["repair"]:
            pairs.append(("what to do", document["repair"]))
        algorithms = verdict.get("algorithms") or {}
        pairs += [
            ("sender", str(verdict.get("sender") or "")),
            ("subject", str(verdict.get("subject") or "")),
            ("message-id", str(verdict.get("message_id") or "")),
            ("delivered to", ", ".join(verdict.get("delivered_to") or ())),
            ("algorithms", ", ".join(f"{role} {name}" for role, name in algorithms.items())),
            ("inner sha256", str(verdict.get("inner_sha256") or "")),
        ]
    else:
        pairs.append(("verdict", "not judged yet"))
    if signer:
        pairs += [
            ("signer", str(signer.get("identity") or signer.get("subject") or "")),
            ("certificate", f"serial {signer.get('serial')}, sha256 {signer.get('sha256')}"),
            ("issued by", str(signer.get("issuer") or "")),
            ("valid", f"{signer.get('not_before')} to {signer.get('not_after')}"),
        ]
    print_record(pairs)
    _print_evidence(verdict, document["links"])


def _print_evidence(verdict: dict[str, Any], links: list[dict[str, Any]]) -> None:
    if verdict.get("trust"):
        out("\nrecipients:")
        print_table(
            ("RECIPIENT", "REASON", "DETAIL"),
            [(str(t.get("recipient")), str(t.get("reason")), str(t.get("detail") or "")) for t in verdict["trust"]],
            whole_last=True,
        )
    if verdict.get("checks"):
        out("\nchecks:")
        print_table(
            ("CHECK", "OUTCOME", "DETAIL"),
            [(str(c.get("name")), str(c.get("outcome")), str(c.get("detail") or "")) for c in verdict["checks"]],
            whole_last=True,
        )
    out("\ncharts:" if links else "\ncharts: none")
    if links:
        print_table(
            ("PATIENT", "LINKED", "HOW", "BY", "RULE", "LINK"),
            [
                (link["patient_id"], when(link["linked_at"]), link["mode"], link["actor"], link["rule"], link["id"])
                for link in links
            ],
        )
