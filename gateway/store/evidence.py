"""The stored form of a judgement: versioned JSON. Certificates are named by digest, the content is not in it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

from gateway.core.verdict import Judgement

FORMAT = 1


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of the bytes, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def to_json(judgement: Judgement) -> str:
    """Return the whole judgement as JSON text, without the content and with certificates by their SHA-256."""
    document: dict[str, Any] = {
        "format": FORMAT,
        "verdict": judgement.verdict,
        "reason": judgement.reason.value,
        "detail": judgement.detail,
        "delivered_to": list(judgement.delivered_to),
        "trust": [asdict(trust) for trust in judgement.trust],
        "sender": judgement.sender,
        "signer": None if judgement.signer is None else asdict(judgement.signer),
        "algorithms": judgement.algorithms,
        "wrapped": judgement.wrapped,
        "message_id": judgement.message_id,
        "subject": judgement.subject,
        "inner_sha256": judgement.inner_sha256,
        "content_sha256": None if judgement.content is None else sha256_hex(judgement.content),
        "protected_offset": judgement.protected_offset,
        "checks": [asdict(check) for check in judgement.checks],
        "certificates": [sha256_hex(der) for der in judgement.certificates],
        "policy_version": judgement.policy_version,
    }
    # ASCII escapes also carry the lone surrogates that a hostile header may hold.
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def from_json(text: str) -> dict[str, Any]:
    """Return the stored judgement as plain values."""
    document: dict[str, Any] = json.loads(text)
    return document
