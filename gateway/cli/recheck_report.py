"""``message recheck`` for people and programs: the verdict in force and the second look side by side."""

from __future__ import annotations

import hashlib
import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from gateway.cli.message_report import repair_for
from gateway.cli.output import clean, out, print_table, when
from gateway.core.lifecycle import State
from gateway.core.verdict import Judgement, Reason

if TYPE_CHECKING:
    from gateway.rejudging import Case, Rejudgement

MAX_COLUMN_CHARS = 64
"""As long as a digest; longer values go on in the next line, so that both sides are shown whole."""
CheckRow = tuple[str, str, str]
"""Name, outcome and detail of a check."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs between the verdict in force and the second look."""

    same: bool
    """The same reason, and delivered to the same recipients."""
    fields: tuple[tuple[str, str, str], ...]
    """What, then, again: all of them, alike or not."""
    only_then: tuple[CheckRow, ...]
    only_again: tuple[CheckRow, ...]
    what_to_do: str


def compare(case: Case, found: Rejudgement, state: State) -> Comparison:
    """Compare the newest verdict with the second look; ``state`` is where the message stands now."""
    then, again = case.verdict, found.judgement
    checks_then = Counter((c["name"], c["outcome"], c["detail"]) for c in then["checks"])
    checks_again = Counter((c.name, c.outcome, c.detail) for c in again.checks)
    lost = [one for one in then["delivered_to"] if one not in again.delivered_to]
    same = then["reason"] == again.reason and sorted(then["delivered_to"]) == sorted(again.delivered_to)
    return Comparison(
        same=same,
        fields=tuple(_fields(then, again)),
        only_then=tuple((checks_then - checks_again).elements()),
        only_again=tuple((checks_again - checks_then).elements()),
        what_to_do="" if same else _what_to_do(case.message.id, found, state, lost),
    )


def _fields(then: dict[str, Any], again: Judgement) -> list[tuple[str, str, str]]:
    content = None if again.content is None else hashlib.sha256(again.content).hexdigest()
    signer_then, signer_again = then["signer"] or {}, again.signer
    fields = [
        ("verdict", then["verdict"], again.verdict),
        ("reason", then["reason"], again.reason.value),
        ("why", then["detail"], again.detail),
        ("delivered to", ", ".join(then["delivered_to"]), ", ".join(again.delivered_to)),
        ("sender", then["sender"], again.sender),
        ("signer", signer_then.get("sha256", ""), signer_again.sha256 if signer_again else ""),
        ("content", then["content_sha256"] or "", content or ""),
        ("policy", then["policy_version"], again.policy_version),
    ]
    trust_then = {t["recipient"]: _trusted(t["reason"], t["anchor_sha256"]) for t in then["trust"]}
    trust_again = {t.recipient: _trusted(t.reason.value, t.anchor_sha256) for t in again.trust}
    recipients = dict.fromkeys((*trust_then, *trust_again))
    return fields + [(f"for {one}", trust_then.get(one, ""), trust_again.get(one, "")) for one in recipients]


def _trusted(reason: str, anchor_sha256: str | None) -> str:
    return f"{reason} by anchor {anchor_sha256[:16]}" if anchor_sha256 else reason


def _what_to_do(message_id: str, found: Rejudgement, state: State, lost: list[str]) -> str:
    again = found.judgement
    if state is State.REFUSED and found.is_provisional:
        ask = f"direct-gateway message recheck {message_id} --as-of now"
        return f"The message is still refused. Whether a certificate was revoked is not known; ask that first: {ask}"
    if state is State.REFUSED and again.accepted:
        retry = f"direct-gateway message retry {message_id}"
        return f"The message is still refused and in no inbox. To have it delivered: {retry}"
    if lost:
        repair = repair_for(again.reason) if again.reason is not Reason.OK else ""
        return (
            f"The message stays where it was delivered: nothing is withdrawn by a second look. Tell {', '.join(lost)} "
            f"that it would not be accepted for them on these terms. {repair}"
        ).rstrip()
    return "Nothing was changed: the verdict in force is the one of then."


def as_document(as_of: str, case: Case, found: Rejudgement, comparison: Comparison) -> dict[str, Any]:
    """What ``--json`` shows."""
    judgement = found.judgement
    return {
        "id": case.message.id,
        "as_of": as_of,
        "judged_at": case.judged_at,
        "judged_as_of": found.as_of,
        "same": comparison.same,
        "then": {
            name: case.verdict[name]
            for name in ("verdict", "reason", "detail", "hint", "delivered_to", "policy_version")
        },
        "again": {
            "verdict": judgement.verdict,
            "reason": judgement.reason.value,
            "detail": judgement.detail,
            "hint": judgement.hint,
            "delivered_to": list(judgement.delivered_to),
            "policy_version": judgement.policy_version,
            "trust": [asdict(trust) for trust in judgement.trust],
            "revocation": [asdict(answer) for answer in judgement.revocation],
        },
        "differences": [
            {"what": what, "then": then, "again": again} for what, then, again in comparison.fields if then != again
        ],
        "checks_only_then": [_check(row) for row in comparison.only_then],
        "checks_only_again": [_check(row) for row in comparison.only_again],
        "notes": list(found.notes),
        "what_to_do": comparison.what_to_do,
    }


def _check(row: CheckRow) -> dict[str, str]:
    return dict(zip(("name", "outcome", "detail"), row, strict=True))


def _side_by_side(what: str, then: str, again: str) -> Iterator[tuple[str, str, str, str]]:
    """Rows for one field: both sides whole, in columns of the same width."""
    mark = "!=" if then != again else ""
    for left, right in zip_longest(_lines(then), _lines(again), fillvalue=""):
        yield mark, what, left, right
        mark = what = ""


def _lines(text: str) -> list[str]:
    return textwrap.wrap(clean(text), MAX_COLUMN_CHARS) or [""]


def print_comparison(as_of: str, case: Case, found: Rejudgement, comparison: Comparison) -> None:
    """Print both side by side, what differs marked."""
    word = "as of then" if as_of == "then" else f"as of {when(found.as_of)}"
    out(f"{case.message.id}: {'the same' if comparison.same else 'DIFFERENT'}, judged again {word}")
    out()
    print_table(
        ("", "", "THEN", "AGAIN"),
        [
            ("", "moment", when(case.judged_at), when(found.as_of)),
            *(row for field in comparison.fields for row in _side_by_side(*field)),
        ],
        max_chars=MAX_COLUMN_CHARS,
    )
    if comparison.only_then or comparison.only_again:
        out("\nchecks that differ:")
        rows = [("then", *row) for row in comparison.only_then] + [("again", *row) for row in comparison.only_again]
        print_table(("", "CHECK", "OUTCOME", "DETAIL"), rows, whole_last=True)
    if comparison.what_to_do:
        out(f"\nwhat to do: {clean(comparison.what_to_do)}")
    if found.judgement.hint:
        out(f"in particular: {clean(found.judgement.hint)}")
    for one in found.notes:
        out(f"note: {clean(one)}")
