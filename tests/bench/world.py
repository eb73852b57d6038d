"""The folder that one run works in: keys, certificates and one message for each size, read by every row.

Kept small on purpose: a process whose memory is measured imports this and no more than it needs.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

SENDER = "jane@direct.sender.example"
RECIPIENT = "ann@direct.clinic.example"
SIZES = {"10k": 10_000, "100k": 100_000, "1m": 1_000_000, "25m": 25_000_000}
"""Bytes of the attachment before any encoding."""

Range = tuple[int, int]


class BenchError(Exception):
    """The benchmark is broken: what it would print means nothing. The text says what went wrong."""


@dataclass(frozen=True)
class Plan:
    """Where everything is in one message, found out in advance: the floor does not parse."""

    body: Range
    """Of the message: the base64 of the CMS object."""
    encrypted_key: Range
    """Of the CMS object, like the two that follow."""
    iv: Range
    ciphertext: Range
    signed: Range
    """Of the plaintext, like the next one."""
    signature_body: Range
    """The base64 of the signature."""
    attributes: Range
    """Of the decoded signature, like the two that follow: the signed attributes, still tagged [0]."""
    message_digest: Range
    signature: Range


@dataclass(frozen=True)
class World:
    """What lies where in the folder."""

    folder: Path

    @property
    def identities(self) -> Path:
        return self.folder / "identities"

    @property
    def anchors(self) -> Path:
        return self.folder / "anchors"

    @property
    def crls(self) -> Path:
        return self.folder / "crls"

    @property
    def recipient_key(self) -> Path:
        return self.identities / "recipient.key.pem"

    @property
    def recipient_certificate(self) -> Path:
        return self.identities / "recipient.cert.pem"

    @property
    def signer_certificate(self) -> Path:
        return self.folder / "signer.pem"

    def message(self, size: str) -> Path:
        return self.folder / f"{size}.eml"

    def plan(self, size: str) -> Plan:
        ranges = json.loads((self.folder / f"{size}.json").read_text())
        return Plan(**{name: (int(start), int(end)) for name, (start, end) in ranges.items()})

    def keep_plan(self, size: str, plan: Plan) -> None:
        (self.folder / f"{size}.json").write_text(json.dumps(asdict(plan)))
