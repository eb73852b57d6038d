"""What the Security/Trust Agent says of a message, as values.

A ``Judgement`` is the whole answer: the verdict, the exact bytes that the signature protects, who signed them,
who may have them, and the evidence for each step. It is a pure function of (raw bytes, envelope, keys, anchors,
revocation data, time), so that a message can be judged again later as of then.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Reason(StrEnum):
    """Why a message was accepted or rejected. The words are part of the command-line contract."""

    OK = "ok"
    NOT_ENCRYPTED = "not_encrypted"
    NOT_SIGNED = "not_signed"
    CANNOT_DECRYPT = "cannot_decrypt"
    MALFORMED = "malformed"
    BAD_SIGNATURE = "bad_signature"
    WEAK_ALGORITHM = "weak_algorithm"
    UNTRUSTED = "untrusted"
    EXPIRED = "expired"
    REVOKED = "revoked"
    BINDING_MISMATCH = "binding_mismatch"
    KEY_USAGE = "key_usage"
    ROUTING_TAMPER = "routing_tamper"
    RESOURCE_LIMIT = "resource_limit"


REPAIRS: dict[Reason, str] = {
    Reason.OK: "",
    Reason.NOT_ENCRYPTED: "The sender's system sent ordinary mail. Ask the sender to use Direct.",
    Reason.NOT_SIGNED: "The sender's system encrypts but does not sign. Ask its operator to sign messages.",
    Reason.CANNOT_DECRYPT: "No private key here opens the message. Add the missing key.",
    Reason.MALFORMED: "The message is damaged or not built as S/MIME. Ask the sender to send it again.",
    Reason.BAD_SIGNATURE: "The content was changed after signing, or wrongly signed. Ask the sender to send it again.",
    Reason.WEAK_ALGORITHM: "The sender uses an algorithm that Direct forbids. Its software or keys must be renewed.",
    Reason.UNTRUSTED: "No trust anchor of the recipient stands behind the sender. Add it, if you trust them.",
    Reason.EXPIRED: "A certificate of the sender is outside its validity dates. The sender must renew it.",
    Reason.REVOKED: "A certificate of the sender has been revoked. Do not trust it; ask the sender another way.",
    Reason.BINDING_MISMATCH: "The signer is not the person named in From. Treat it as forged until explained.",
    Reason.KEY_USAGE: "The certificate may not be used for signing mail. The sender needs another one.",
    Reason.ROUTING_TAMPER: "The envelope disagrees with the signed headers: it may have been redirected.",
    Reason.RESOURCE_LIMIT: "The message exceeds a safety limit. Ask the sender for a smaller or simpler one.",
}
"""The repair that each reason needs, in plain words for the person who works the quarantine."""


@dataclass(frozen=True, slots=True)
class Signer:
    """The signer that was accepted (or, in a rejection, the one that came nearest)."""

    subject: str
    issuer: str
    serial: str
    """Hexadecimal, lower case, without prefix."""
    sha256: str
    """SHA-256 of the certificate's DER, hexadecimal."""
    identity: str
    """The SAN value that binds the signer to the sender: an address or a domain."""
    not_before: str
    not_after: str
    """ISO 8601 in UTC."""


@dataclass(frozen=True, slots=True)
class Check:
    """One step of the examination, for the evidence kept with the message for ever."""

    name: str
    outcome: str
    """``passed``, ``failed``, ``skipped`` or ``noted``."""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class RecipientTrust:
    """Trust is decided per recipient (AS-56..58)."""

    recipient: str
    reason: Reason
    detail: str = ""
    anchor_sha256: str | None = None
    """The trust anchor that accepted the signer for this recipient."""
    chain_sha256: tuple[str, ...] = ()
    """Leaf first, anchor last."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The agent's whole answer for one message.

    ``content`` is set only when the message was accepted: the bytes to be delivered to an inbox, a complete
    RFC 5322 message. For a wrapped message they are exactly the enclosed message; for an unwrapped one a small
    header block taken from the outer message stands before the signed entity, whose bytes follow untouched.
    ``inner_sha256`` is the digest of the exact bytes that the signature protects (the command's contract, and ON-21).
    """

    reason: Reason
    detail: str
    delivered_to: tuple[str, ...] = ()
    """Normalised recipients whose anchors accept the signer; never empty when accepted."""
    trust: tuple[RecipientTrust, ...] = ()
    sender: str = ""
    """Verified, normalised Direct address of the inner From; empty when not verified."""
    signer: Signer | None = None
    algorithms: dict[str, str] = field(default_factory=dict)
    """Names by role: ``content_encryption``, ``key_transport``, ``digest``, ``signature``."""
    wrapped: bool | None = None
    message_id: str = ""
    subject: str = ""
    inner_sha256: str = ""
    content: bytes | None = None
    protected_offset: int = 0
    """Where in ``content`` the signed bytes begin (0 for a wrapped message)."""
    checks: tuple[Check, ...] = ()
    certificates: tuple[bytes, ...] = ()
    """DER of every certificate in the evidence: the signer's first."""
    policy_version: str = ""

    @property
    def accepted(self) -> bool:
        """Whether at least one recipient may have the message."""
        return self.reason is Reason.OK

    @property
    def verdict(self) -> str:
        """``accepted`` or ``rejected``."""
        return "accepted" if self.accepted else "rejected"
