"""What reads the claims of a message and what compares them with patients, put together for the pipeline.

Only the patients whom the address book names for the sender are compared: to find out that a message from an address
that is documented is not of the patient it is documented for. So nothing is linked by demographics here.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.claims import Evidence
from gateway.core.findings import Findings
from gateway.evidence.message import read_evidence
from gateway.matching.index import PatientIndex
from gateway.matching.judge import findings
from gateway.matching.stored import record_of
from gateway.ports import Patient


class Weighing:
    """An :class:`gateway.ports.EvidenceReader`."""

    def read(self, content: bytes, sender: str) -> Evidence:
        """All that the verified bytes say of a patient."""
        return read_evidence(content, sender)

    def weigh(self, evidence: Evidence, patients: Sequence[Patient]) -> Findings:
        """How the patients stand to it."""
        index = PatientIndex([record_of(patient) for patient in patients])
        return findings(index, evidence, [patient.id for patient in patients])
