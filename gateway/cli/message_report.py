"""``message show`` and ``quarantine show`` for people: the verdict and its evidence, as the store has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.cli.output import out, print_record, print_table, when
from gateway.core.verdict import REPAIRS, Reason

DIGEST_CHARS = 16
"""How much of a digest is shown in a table."""
MAX_POLICY_CHARS = 160
"""A version names every decision that differs from the default; two of them differ at the end."""


def repair_of(verdict: dict[str, Any]) -> str:
    """Return the repair that the stored verdict's reason needs, or the empty string."""
    return repair_for(str(verdict.get("reason", "")))


def repair_for(reason: str) -> str:
    """Return the repair that a reason needs, or the empty string."""
    try:
        return REPAIRS[Reason(reason)]
    except ValueError:
        return ""


def reverse_path(mail_from: str | None) -> str:
    """The envelope's sender for people."""
    return "<> (null sender)" if mail_from == "" else mail_from or "no envelope"


def print_message(document: dict[str, Any]) -> None:
    """Print the document of :func:`gateway.cli.message_lookup.describe`: what is known of it, without its content."""
    if document["kept"]:
        _print_kept(document)
        return
    verdict = document["verdict"]
    pairs = [
        ("id", document["id"]),
        ("state", document["state"]),
        ("received", when(document["received_at"])),
        ("from host", f"{document['peer'] or 'local'} ({document['source']})"),
        ("envelope from", reverse_path(document["mail_from"])),
        ("envelope to", ", ".join(document["recipients"])),
        ("raw bytes", f"{document['raw_size_bytes']}, sha256 {document['raw_sha256']}"),
    ]
    if verdict:
        pairs.append(("judged", when(document["judged_at"])))
        pairs += _verdict_pairs(verdict, document["repair"])
    else:
        pairs.append(("verdict", "not judged yet"))
    pairs += _signer_pairs(verdict.get("signer") or {})
    print_record(pairs)
    _print_evidence(verdict)
    _print_links(document["links"])
    _print_undone(document["undone_links"])
    _print_standing(document)
    _print_earlier(document["earlier_verdicts"])
    _print_rechecks(document["rechecks"])


def _print_kept(document: dict[str, Any]) -> None:
    """One that a mail client put here. It was never received, so it has no envelope, no verdict and no chart."""
    kept = document["kept"]
    print_record(
        [
            ("id", document["id"]),
            ("state", f"{document['state']}: a copy of what was sent, put into Sent by a mail client; never judged"),
            ("kept", when(document["received_at"])),
            ("put there by", kept["by"]),
            ("claims to be from", kept["claimed_sender"]),
            ("subject", kept["subject"]),
            ("message-id", kept["message_id"]),
            ("bytes", f"{document['raw_size_bytes']}, sha256 {document['raw_sha256']}"),
        ]
    )


def _verdict_pairs(verdict: dict[str, Any], repair: str) -> list[tuple[str, str]]:
    reason, detail = str(verdict.get("reason", "")), str(verdict.get("detail") or "")
    pairs = [
        ("verdict", "accepted" if reason == Reason.OK else "rejected"),
        ("reason", reason + (f": {detail}" if detail else "")),
    ]
    if repair:
        pairs.append(("what to do", repair))
    if verdict.get("hint"):
        pairs.append(("in particular", str(verdict["hint"])))
    algorithms = verdict.get("algorithms") or {}
    return [
        *pairs,
        ("sender", str(verdict.get("sender") or "")),
        ("subject", str(verdict.get("subject") or "")),
        ("message-id", str(verdict.get("message_id") or "")),
        ("delivered to", ", ".join(verdict.get("delivered_to") or ())),
        ("algorithms", ", ".join(f"{role} {name}" for role, name in algorithms.items())),
        ("inner sha256", str(verdict.get("inner_sha256") or "")),
        ("policy", str(verdict.get("policy_version") or "")),
    ]


def _signer_pairs(signer: dict[str, Any]) -> list[tuple[str, str]]:
    if not signer:
        return []
    return [
        ("signer", str(signer.get("identity") or signer.get("subject") or "")),
        ("certificate", f"serial {signer.get('serial')}, sha256 {signer.get('sha256')}"),
        ("issued by", str(signer.get("issuer") or "")),
        ("valid", f"{signer.get('not_before')} to {signer.get('not_after')}"),
    ]


def _print_evidence(verdict: dict[str, Any]) -> None:
    if verdict.get("trust"):
        out("\nrecipients:")
        print_table(
            ("RECIPIENT", "REASON", "ANCHOR", "FROM", "DETAIL"),
            [
                (t["recipient"], t["reason"], _digest(t["anchor_sha256"]), ", ".join(t["anchor_sources"]), t["detail"])
                for t in verdict["trust"]
            ],
            whole_last=True,
        )
    if verdict.get("revocation"):
        out("\nrevocation:")
        print_table(
            ("CERTIFICATE", "STATUS", "BY", "OF", "UNTIL", "ORIGIN", "DETAIL"),
            [
                (
                    _digest(a["certificate_sha256"]), a["status"], a["kind"], a["this_update"], a["next_update"],
                    a["origin"], a["detail"],
                )
                for a in verdict["revocation"]
            ],
            whole_last=True,
        )  # fmt: skip
    if verdict.get("checks"):
        out("\nchecks:")
        rows = [(c["name"], c["outcome"], c["detail"]) for c in verdict["checks"]]
        print_table(("CHECK", "OUTCOME", "DETAIL"), rows, whole_last=True)


def _digest(sha256: str | None) -> str:
    return (sha256 or "")[:DIGEST_CHARS]


def _print_links(links: Sequence[dict[str, Any]]) -> None:
    out("\ncharts:" if links else "\ncharts: none")
    if links:
        print_table(
            ("PATIENT", "PART", "LINKED", "HOW", "BY", "RULE", "LINK"),
            [
                (
                    link["patient_id"], link["part"] or "all", when(link["linked_at"]), link["mode"], link["actor"],
                    link["rule"], link["id"],
                )
                for link in links
            ],
        )  # fmt: skip


def _print_undone(records: Sequence[dict[str, Any]]) -> None:
    if not records:
        return
    out("\ntaken off a chart:")
    print_table(
        ("PATIENT", "PART", "LINKED", "UNDONE", "BY", "LINK", "WHY"),
        [
            (
                record["link"]["patient_id"],
                record["link"]["part"] or "all",
                when(record["link"]["linked_at"]),
                when(record["undone"]["at"]),
                record["undone"]["actor"],
                record["link"]["id"],
                record["undone"]["reason"],
            )
            for record in records
        ],
        whole_last=True,
    )


def _print_standing(document: dict[str, Any]) -> None:
    if document["view"]:
        out(f"\nmail clients see: {' '.join(document['keywords'])} (view {document['view']})")
    out("reviews:" if document["reviews"] else "reviews: none")
    if document["reviews"]:
        print_table(
            ("AT", "STATE", "BY", "MESSAGE"),
            [
                (when(review["at"]), review["state"], review["actor"], review["message_id"])
                for review in document["reviews"]
            ],
        )


def _print_earlier(verdicts: Sequence[dict[str, Any]]) -> None:
    if verdicts:
        out("\njudged before (the verdict above has replaced these):")
        print_table(
            ("JUDGED AT", "REASON", "POLICY", "DETAIL"),
            [(when(v["at"]), v["reason"], v["policy_version"], v["detail"]) for v in verdicts],
            whole_last=True,
            max_chars=MAX_POLICY_CHARS,
        )


def _print_rechecks(rechecks: Sequence[dict[str, Any]]) -> None:
    if rechecks:
        out("\njudged again (the verdict above stays in force):")
        print_table(
            ("JUDGED AT", "AS OF", "REASON", "POLICY", "DELIVERED TO", "DETAIL"),
            [
                (
                    when(r["at"]), when(r["as_of"]), r["reason"], r["policy_version"], ", ".join(r["delivered_to"]),
                    r["detail"],
                )
                for r in rechecks
            ],
            whole_last=True,
            max_chars=MAX_POLICY_CHARS,
        )  # fmt: skip
