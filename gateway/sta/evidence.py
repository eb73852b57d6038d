"""What an examination found, step by step, while it is under way; becomes part of the judgement.

Details name no content of the message: counts, algorithms, positions and causes only, because the evidence is shown
to operators and kept for ever.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.core.verdict import Check, RecipientTrust, Signer


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

    def passed(self, name: str, detail: str = "") -> None:
        """A step that had to hold and does."""
        self.checks.append(Check(name, "passed", detail))

    def failed(self, name: str, detail: str) -> None:
        """A step that does not hold; one such signer or recipient need not refuse the message."""
        self.checks.append(Check(name, "failed", detail))

    def skipped(self, name: str, detail: str) -> None:
        """A step that could not be made."""
        self.checks.append(Check(name, "skipped", detail))

    def noted(self, name: str, detail: str) -> None:
        """Something odd that is tolerated."""
        self.checks.append(Check(name, "noted", detail))
