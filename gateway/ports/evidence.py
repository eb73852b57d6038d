"""What a message says of its patient, as the pipeline needs it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from gateway.core.claims import Evidence
from gateway.core.findings import Findings
from gateway.ports.storage import UnitOfWork


class EvidenceReader(Protocol):
    """Reads the claims of a message, and holds them against the patients. Nothing is written."""

    def read(self, content: bytes, sender: str) -> Evidence:
        """All that the verified bytes say of a patient; ``sender`` is who the signature was bound to, or empty.

        Never raises for what the message holds. It takes CPU (milliseconds for a large document, seconds at worst for
        a hostile one), and may read the store: to be called in a thread, before the transaction.

        Raises:
            StoreError: the patients cannot be read.
        """
        ...

    def weigh(self, tx: UnitOfWork, evidence: Evidence, documented: Collection[str]) -> Findings | None:
        """How every patient who may be meant stands to it as of the transaction.

        None for a message that says nothing but who sent it. ``documented``: the ids of the patients whom the address
        book names for the sender; they are compared in any case.
        """
        ...
