"""What the Security/Trust Agent says of a message, as values.

A ``Judgement`` is the whole answer: the verdict, the exact bytes that the signature protects, who signed them,
who may have them, and the evidence for each step. It is a pure function of (raw bytes, envelope, keys, anchors,
revocation data, time), so that a message can be judged again later as of then.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
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
    Reason.NOT_ENCRYPTED: (
        "The sender's system sent ordinary mail, which nobody can vouch for. Ask the sender to send it by Direct."
    ),
    Reason.NOT_SIGNED: (
        "The message is encrypted but not signed, so nobody knows who wrote it. "
        "The sender's operator must turn on signing, and the message be sent again."
    ),
    Reason.CANNOT_DECRYPT: (
        "No private key here opens the message. If the recipient's key was renewed, put the old key back beside the "
        "new one, and retry. Otherwise the sender used a wrong certificate and must look up the recipient's again."
    ),
    Reason.MALFORMED: (
        "The message is damaged or not built as S/MIME. Ask the sender to send it again; "
        "if that fails too, give its operator the detail above."
    ),
    Reason.BAD_SIGNATURE: (
        "What arrived is not what was signed: it was changed on the way, or wrongly signed. "
        "Ask the sender to send it again; if that fails too, give its operator the detail above."
    ),
    Reason.WEAK_ALGORITHM: (
        "The sender used an algorithm or a key that is too weak for Direct. Its software or keys must be renewed. "
        "Only when the reason says that the settings here forbid it: allow it again in trust.refuse_algorithms or "
        "trust.min_rsa_bits, and retry."
    ),
    Reason.UNTRUSTED: (
        "No trust anchor of the recipient stands behind the signer, or it could not be learned whether a certificate "
        "was revoked; `quarantine show` says which. Find out who the signer is; if you trust their authority, "
        "add its anchor or its trust bundle, or its current revocation list, and retry."
    ),
    Reason.EXPIRED: (
        "A certificate is outside its validity dates. When it is the sender's, the sender must renew it and send "
        "again; when it is an authority's, add the renewed anchor, and retry."
    ),
    Reason.REVOKED: (
        "The authority has revoked a certificate of the sender: somebody else may have the key. "
        "Do not trust the message; ask the sender another way, and have it sent again with a new certificate."
    ),
    Reason.BINDING_MISMATCH: (
        "The signer is not the address named in From. Treat it as forged until the sender has explained it another "
        "way; the sender needs a certificate for that very address or its domain."
    ),
    Reason.KEY_USAGE: (
        "The signer's certificate may not sign mail (it is made for encryption, a server or an authority). "
        "The sender must sign with a certificate that may."
    ),
    Reason.ROUTING_TAMPER: (
        "The envelope disagrees with the signed From, To and Cc: the message may have been sent on by somebody else. "
        "Ask the sender whom it was meant for, and have it sent again to that address."
    ),
    Reason.RESOURCE_LIMIT: (
        "The message exceeds a safety limit, or could not be examined to its end. Ask the sender for a smaller or "
        "simpler one; when the detail says that the examination failed, retry after the next update of the gateway."
    ),
}
"""The repair that each reason needs, in plain words for the person who works the quarantine."""

REPAIRED_HERE = frozenset({Reason.CANNOT_DECRYPT, Reason.UNTRUSTED, Reason.EXPIRED, Reason.RESOURCE_LIMIT})
"""What a repair on our side can mend, so that judging the same message again may end otherwise."""

FORBIDDEN_HERE = "the settings here forbid it"
"""How the detail of WEAK_ALGORITHM tells what only this gateway's settings forbid from what lies below the floor."""


def is_repaired_here(reason: str, detail: str) -> bool:
    """Whether a repair on our side can mend a rejection: the floor of the algorithms cannot be lowered."""
    return reason in REPAIRED_HERE or (reason == Reason.WEAK_ALGORITHM and FORBIDDEN_HERE in detail)


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
    anchor_sources: tuple[str, ...] = ()
    """Where that anchor came from: ``folder``, or the bundle and its version (TB-17)."""
    chain_sha256: tuple[str, ...] = ()
    """Leaf first, anchor last."""
    anchor_set: str = ""
    """Names the set of all anchors that the recipient trusted (:func:`anchor_set_name`): a key of
    ``Judgement.anchor_sets``."""


@dataclass(frozen=True, slots=True)
class RevocationAnswer:
    """What was learned of one certificate of a path, from whom, and for which time (AS-55, AS-70)."""

    certificate_sha256: str
    status: str
    """``good``, ``revoked`` or ``unknown``."""
    detail: str
    kind: str = ""
    """``crl`` or ``ocsp``; empty when there was no answer."""
    origin: str = ""
    """``operator``, ``message``, or the URL that it was fetched from."""
    this_update: str = ""
    next_update: str = ""
    """ISO 8601 in UTC; empty when the answer does not say."""
    revoked_at: str = ""
    data_sha256: str = ""
    """Of the list or response, which is among ``Judgement.revocation_data``."""


@dataclass(frozen=True, slots=True)
class AnchorSet:
    """All anchors that one recipient trusted when a message was judged, so that it can be judged again as of then."""

    anchors: tuple[bytes, ...]
    """DER."""
    sources: tuple[tuple[str, ...], ...]
    """Of each anchor, in the same order."""


def anchor_set_text(members: Iterable[tuple[str, Sequence[str]]]) -> str:
    """The one spelling of a set of anchors, in which it is stored; SHA-256 and sources of each, in any order."""
    unique = sorted({(sha256, tuple(sorted(sources))) for sha256, sources in members})
    listed = [{"sha256": sha256, "sources": list(sources)} for sha256, sources in unique]
    return json.dumps(listed, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def anchor_set_name(members: Iterable[tuple[str, Sequence[str]]]) -> str:
    """The name of a set of anchors: SHA-256 of its spelling, hexadecimal. Equal sets have equal names.

    The sources are part of it because the evidence keeps a set once under its name: the same certificates out of the
    next version of a bundle are another fact.
    """
    return hashlib.sha256(anchor_set_text(members).encode("ascii")).hexdigest()


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
    content_sha256: str = ""
    """Of ``content``: computed once, because everybody who keeps it needs it and it may be large."""
    protected_offset: int = 0
    """Where in ``content`` the signed bytes begin (0 for a wrapped message)."""
    checks: tuple[Check, ...] = ()
    certificates: tuple[bytes, ...] = ()
    """DER of every certificate in the evidence: the signer's first."""
    revocation: tuple[RevocationAnswer, ...] = ()
    revocation_data: tuple[bytes, ...] = ()
    """DER of the CRLs and OCSP responses that the answers rest on."""
    anchor_sets: dict[str, AnchorSet] = field(default_factory=dict)
    """By the names in ``trust``."""
    policy_version: str = ""
    """The matrix and the settings in force, so that a later judgement can be compared."""
    hint: str = ""
    """For a rejection: the repair in particular (which key, which issuer), for the operator; no content."""

    def __post_init__(self) -> None:
        if self.content is not None and not self.content_sha256:
            object.__setattr__(self, "content_sha256", hashlib.sha256(self.content).hexdigest())

    @property
    def accepted(self) -> bool:
        """Whether at least one recipient may have the message."""
        return self.reason is Reason.OK

    @property
    def verdict(self) -> str:
        """``accepted`` or ``rejected``."""
        return "accepted" if self.accepted else "rejected"
