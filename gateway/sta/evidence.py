"""What an examination found, step by step, while it is under way; becomes part of the judgement.

Details name no content of the message: counts, algorithms, positions and causes only, because the evidence is shown
to operators and kept for ever.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from gateway.core.verdict import AnchorSet, Check, RecipientTrust, RevocationAnswer, Signer

_check = lru_cache(maxsize=512)(Check)
"""Most steps of all messages end alike, and values are shared."""


@dataclass
class Evidence:
    """Collected facts. Everything in it is true of the message even when the verdict is a rejection."""

    checks: list[Check] = field(default_factory=list)
    algorithms: dict[str, str] = field(default_factory=dict)
    certificates: dict[bytes, None] = field(default_factory=dict)
    signer: Signer | None = None
    wrapped: bool | None = None
    message_id: str = ""
    subject: str = ""
    trust: list[RecipientTrust] = field(default_factory=list)
    revocation: list[RevocationAnswer] = field(default_factory=list)
    revocation_data: dict[bytes, None] = field(default_factory=dict)
    anchor_sets: dict[str, AnchorSet] = field(default_factory=dict)
    policy_version: str = ""
    hint: str = ""

    def passed(self, name: str, detail: str = "") -> None:
        """A step that had to hold and does."""
        self.checks.append(_check(name, "passed", detail))

    def failed(self, name: str, detail: str) -> None:
        """A step that does not hold; one such signer or recipient need not refuse the message."""
        self.checks.append(_check(name, "failed", detail))

    def skipped(self, name: str, detail: str) -> None:
        """A step that could not be made."""
        self.checks.append(_check(name, "skipped", detail))

    def noted(self, name: str, detail: str) -> None:
        """Something odd that is tolerated."""
        self.checks.append(_check(name, "noted", detail))
