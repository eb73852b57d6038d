"""The stored form of a judgement: versioned JSON.

Certificates, revocation data and anchor sets are named by digest and stand in tables of their own; the content is not
in it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from gateway.core.errors import StoreError
from gateway.core.verdict import Judgement

FORMAT = 2


def to_json(judgement: Judgement, certificates: Sequence[str], revocation_data: Sequence[str]) -> str:
    """Return the whole judgement as JSON text, without the content.

    Args:
        judgement: what was judged.
        certificates: the digests of its certificates, in their order.
        revocation_data: the digests of its revocation data.
    """
    document: dict[str, Any] = {
        "format": FORMAT,
        "verdict": judgement.verdict,
        "reason": judgement.reason.value,
        "detail": judgement.detail,
        "hint": judgement.hint,
        "delivered_to": list(judgement.delivered_to),
        "trust": [asdict(trust) for trust in judgement.trust],
        "sender": judgement.sender,
        "signer": None if judgement.signer is None else asdict(judgement.signer),
        "algorithms": judgement.algorithms,
        "wrapped": judgement.wrapped,
        "message_id": judgement.message_id,
        "subject": judgement.subject,
        "inner_sha256": judgement.inner_sha256,
        "content_sha256": judgement.content_sha256 or None,
        "protected_offset": judgement.protected_offset,
        "checks": [asdict(check) for check in judgement.checks],
        "certificates": list(certificates),
        "revocation": [asdict(answer) for answer in judgement.revocation],
        "revocation_data": list(revocation_data),
        "anchor_sets": sorted(judgement.anchor_sets),
        "policy_version": judgement.policy_version,
    }
    # ASCII escapes also carry the lone surrogates that a hostile header may hold.
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def from_json(text: str) -> dict[str, Any]:
    """Return the stored judgement as plain values.

    Raises:
        StoreError: damaged, or of another format.
    """
    try:
        document: dict[str, Any] = json.loads(text)
        found = document.get("format")
    except (ValueError, AttributeError):
        raise StoreError("a stored verdict is damaged") from None
    if found != FORMAT:
        raise StoreError(f"a stored verdict has format {found}, and this release reads format {FORMAT}")
    return document
