"""What a message says of its patient, as the pipeline needs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gateway.core.claims import Evidence
from gateway.core.findings import Findings
from gateway.ports.rows import Patient


class EvidenceReader(Protocol):
    """Reads the claims of a message, and holds them against patients. Pure: nothing is asked and nothing kept."""

    def read(self, content: bytes, sender: str) -> Evidence:
        """All that the verified bytes say of a patient; ``sender`` is who the signature was bound to, or empty.

        Never raises for what the message holds. It takes CPU (milliseconds for a large document, seconds at worst for
        a hostile one): to be called in a thread.
        """
        ...

    def weigh(self, evidence: Evidence, patients: Sequence[Patient]) -> Findings:
        """How these patients, whom the address book names for the sender, stand to what the message says."""
        ...
