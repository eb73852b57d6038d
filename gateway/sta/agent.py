"""The Security/Trust Agent: one message in, one judgement out (Applicability Statement section 1; the S/MIME rules).

The order of the examination is the order of the reasons: encryption, signature, sender and binding, fitness of the
signer's certificate, trust of each recipient, envelope. What is decrypted leaves only in the judgement of an accepted
message; a rejection carries causes, never content (AS-58, AS-59).

Guarantees: ``judge`` is a function of its arguments, the keys, the anchors, the revocation data and what may be
fetched. It raises nothing for what a message holds: hostile input is a rejection. A fault of our own becomes a
MALFORMED rejection and a log event that names its place, so that the message is kept and can be run again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from gateway.core.address import normalise
from gateway.core.errors import InputError, RejectionError
from gateway.core.message import Envelope
from gateway.core.mime.headers import ResourceLimitError
from gateway.core.verdict import Judgement, Reason
from gateway.observability.log import get_log
from gateway.ports import KeyOps, KeyRing
from gateway.sta.algorithm_policy import POLICY_VERSION
from gateway.sta.anchors import AnchorStore
from gateway.sta.certificates import Certificate, parse_many
from gateway.sta.crls import message_crls
from gateway.sta.evidence import Evidence
from gateway.sta.fetcher import Fetcher
from gateway.sta.identity import Mailbox, binding, first_identity, name_count, named_recipients
from gateway.sta.inner_message import InnerMessage, open_inner, shown
from gateway.sta.mime_entity import Entity, canonical_line_ends, read_entity
from gateway.sta.path_validation import check_leaf
from gateway.sta.revocation import RevocationCheck, RevocationSource
from gateway.sta.routing import check_routing
from gateway.sta.signers import Signature, examine_signers
from gateway.sta.trust import TrustExamination, most_specific
from gateway.sta.unwrapper import SignedContent, unwrap

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
MAX_CERTIFICATES = 32
log = get_log("sta")


@dataclass
class SecurityTrustAgent:
    """Implements :class:`gateway.ports.SecurityAgent`. Safe to use from several threads at once.

    ``judge`` must be called in a thread without a running event loop.
    """

    keys: KeyRing
    anchors: AnchorStore
    revocation: RevocationSource = field(default_factory=RevocationSource)
    fetcher: Fetcher = field(default_factory=Fetcher)
    hard_revocation: bool = False
    """True: an unknown revocation status refuses; False: it is recorded and passes (AS-70)."""

    def judge(self, raw: bytes, envelope: Envelope, at: datetime) -> Judgement:
        """Judge a message as of the (aware) moment. Never raises for what the message holds."""
        evidence = Evidence()
        try:
            return _Examination(self, raw, envelope, at, evidence).run()
        except RejectionError as fault:
            return _rejection(fault.reason, fault.detail, evidence)
        except (ResourceLimitError, MemoryError, RecursionError):
            return _rejection(Reason.RESOURCE_LIMIT, "the message exceeds a safety limit", evidence)
        except Exception as exc:  # noqa: BLE001 - the last line of defence: the message stays in quarantine
            # Only the class and the place of the fault are logged: its text could quote the message.
            log.fault("message_not_examined", exc)
            return _rejection(Reason.MALFORMED, f"the message could not be examined ({type(exc).__name__})", evidence)

    def local_names(self) -> tuple[frozenset[str], frozenset[str]]:
        """The addresses that have a key, and the local domains: those of every key."""
        names = self.keys.names()
        return names, frozenset(name.rpartition("@")[2] for name in names)

    def local(self, addresses: Sequence[str]) -> tuple[str, ...]:
        """Those of the addresses, normalised, that lie in a local domain."""
        _, domains = self.local_names()
        found: dict[str, None] = {}
        for address in addresses:
            try:
                normalised = normalise(address.strip().removeprefix("<").removesuffix(">"))
            except InputError:
                continue
            if normalised.rpartition("@")[2] in domains:
                found.setdefault(normalised)
        return tuple(found)

    def keys_to_try(self, envelope: Envelope, outer: Entity) -> Sequence[KeyOps]:
        """The keys of the local recipients (AS-49).

        Without an envelope the outer To and Cc, which nobody vouches for, only say which keys to try first.
        """
        if envelope.recipients:
            return self.keys.keys_for(self.local(envelope.recipients))
        # A key that is bound to a domain answers for every address in it.
        everyone = [name if "@" in name else f"postmaster@{name}" for name in sorted(self.keys.names())]
        first = self.keys.keys_for(self.local(named_recipients(outer.headers)))
        rest = self.keys.keys_for(everyone)
        return tuple({key.certificate: key for key in (*first, *rest)}.values())


@dataclass
class _Examination:
    """One run over one message, top to bottom."""

    agent: SecurityTrustAgent
    raw: bytes
    envelope: Envelope
    at: datetime
    evidence: Evidence

    def run(self) -> Judgement:
        outer = self._read_outer()
        signed = self._unwrap(outer)
        certificates = parse_many(signed.signatures.certificates, MAX_CERTIFICATES)
        self.evidence.certificates.update(dict.fromkeys(c.der for c in certificates))
        signatures, verified_bytes = self._verify(signed, certificates)
        good = [s for s in signatures if s.facts is not None]
        if not good:
            raise self._no_good_signature(signatures, signed, outer)
        inner = open_inner(verified_bytes, signed.carrier, outer)
        self.evidence.wrapped = inner.wrapped
        sender = inner.sender
        bound = self._bind(signatures, good, sender)
        signers = self._fit_to_sign(bound)
        trusted_by = self._trust(inner, signers, certificates, signed)
        check_routing(inner, self.envelope, self.evidence)
        return self._accepted(inner, sender, trusted_by)

    def _read_outer(self) -> Entity:
        if len(self.raw) > MAX_MESSAGE_BYTES:
            raise RejectionError(Reason.RESOURCE_LIMIT, "the message is larger than the limit")
        outer = read_entity(self.raw, what="the message")
        self.evidence.message_id = shown(outer.headers, b"message-id")
        self.evidence.subject = shown(outer.headers, b"subject")
        return outer

    def _unwrap(self, outer: Entity) -> SignedContent:
        """Open the message with the keys of its recipients.

        Raises:
            RejectionError: as ``unwrap``; ROUTING_TAMPER when it is for somebody else here and was redirected.
        """
        try:
            return unwrap(outer, self.agent.keys_to_try(self.envelope, outer), self.evidence)
        except RejectionError as fault:
            if fault.reason is Reason.CANNOT_DECRYPT and self.envelope.recipients:
                self._explain_redirection(outer)
            raise

    def _explain_redirection(self, outer: Entity) -> None:
        """Say what happened to a genuine message that was sent on to people it does not name (AS-45).

        Nobody gets it in either case; the keys of other addresses only tell the cause.

        Raises:
            RejectionError: ROUTING_TAMPER when another key here opens it and its signed To and Cc leave somebody out.
        """
        scratch = Evidence()
        try:
            signed = unwrap(outer, self.agent.keys_to_try(Envelope(None, ()), outer), scratch)
            certificates = parse_many(signed.signatures.certificates, MAX_CERTIFICATES)
            signatures, verified_bytes = self._verify(signed, certificates)
            if not any(s.facts for s in signatures):
                return
            inner = open_inner(verified_bytes, signed.carrier, outer)
            check_routing(inner, Envelope(None, self.envelope.recipients), scratch)
        except RejectionError as fault:
            if fault.reason is Reason.ROUTING_TAMPER:
                raise

    def _verify(self, signed: SignedContent, certificates: list[Certificate]) -> tuple[list[Signature], bytes]:
        """Verify over the bytes as received; only when that fails, over CRLF line ends (S/MIME rule 10, m01)."""
        candidates = [*certificates, *(a for a in self.agent.anchors.all() if a not in certificates)]
        signatures = examine_signers(signed.signatures, signed.signed, candidates)
        if any(s.facts for s in signatures):
            return signatures, self._as_bytes(signed)
        if signed.detached and any(s.fault and s.fault.reason is Reason.BAD_SIGNATURE for s in signatures):
            canonical = canonical_line_ends(signed.signed)
            if canonical is not None:
                second = examine_signers(signed.signatures, canonical, candidates)
                if any(s.facts for s in second):
                    self.evidence.noted("signature", "verified only after bare LF line ends were made CRLF")
                    return second, canonical
        return signatures, self._as_bytes(signed)

    @staticmethod
    def _as_bytes(signed: SignedContent) -> bytes:
        whole = signed.start == 0 and signed.end == len(signed.data)
        return signed.data if whole and isinstance(signed.data, bytes) else bytes(signed.signed)

    def _no_good_signature(self, signatures: list[Signature], signed: SignedContent, outer: Entity) -> RejectionError:
        """The fault to tell when no signature verified: that of the sender's own signer before a stranger's.

        The From that is read for this is not verified; it only picks a cause.
        """
        for signature in signatures:
            if signature.fault is not None:
                self.evidence.failed("signature", f"signer {signature.position}: {signature.fault.detail}")
        told = signatures[0]
        try:
            sender = open_inner(self._as_bytes(signed), signed.carrier, outer).sender
            told = next((s for s in signatures if s.certificate and binding(s.certificate, sender)), told)
        except RejectionError:
            pass
        if told.certificate is not None:
            self.evidence.signer = told.certificate.as_signer(first_identity(told.certificate))
        return told.fault or RejectionError(Reason.BAD_SIGNATURE, "the signature is wrong")

    def _bind(self, signatures: list[Signature], good: list[Signature], sender: Mailbox) -> list[Certificate]:
        """The good signers that are bound to the sender (AS-50, AS-52).

        Raises:
            RejectionError: the fault of a bound signer that did not verify (s12), else BINDING_MISMATCH.
        """
        bound: dict[Certificate, None] = {}
        stranger: Certificate | None = None
        bound_fault: RejectionError | None = None
        for signature in signatures:
            certificate = signature.certificate
            name = binding(certificate, sender) if certificate else None
            if signature.fault is not None:
                self.evidence.failed("signature", f"signer {signature.position}: {signature.fault.detail}")
                bound_fault = bound_fault or (signature.fault if name else None)
            elif signature.facts is not None and certificate is not None:
                if name is None:
                    self.evidence.failed("binding", f"signer {signature.position} is not the sender")
                    stranger = stranger or certificate
                    continue
                self._note_signature(signature, certificate, name)
                bound.setdefault(certificate)
        if not bound:
            if stranger is not None:
                self.evidence.signer = stranger.as_signer(first_identity(stranger))
            raise bound_fault or RejectionError(Reason.BINDING_MISMATCH, "the signer is not the address in From")
        if len(good) < len(signatures):
            self.evidence.noted("signature", "another signature of the message does not verify")
        first = next(iter(bound))
        self.evidence.signer = first.as_signer(binding(first, sender) or "")
        return list(bound)

    def _note_signature(self, signature: Signature, certificate: Certificate, name: str) -> None:
        facts = signature.facts
        if facts is None:
            return
        self.evidence.algorithms.setdefault("digest", facts.digest)
        self.evidence.algorithms.setdefault("signature", facts.signature)
        claimed = f", signed at {facts.signing_time.isoformat()} by its own account" if facts.signing_time else ""
        self.evidence.passed("signature", f"signer {signature.position}{claimed}")
        for note in facts.notes:
            self.evidence.noted("signature", note)
        kind = "address" if "@" in name else "domain"
        self.evidence.passed("binding", f"signer {signature.position} by its {kind}")
        if name_count(certificate) > 1:
            self.evidence.noted("binding", f"the certificate carries {name_count(certificate)} names; one matches")

    def _fit_to_sign(self, bound: list[Certificate]) -> list[Certificate]:
        fit: list[Certificate] = []
        faults: list[RejectionError] = []
        for certificate in bound:
            try:
                check_leaf(certificate)
            except RejectionError as fault:
                self.evidence.failed("key usage", fault.detail)
                faults.append(fault)
            else:
                fit.append(certificate)
        if not fit:
            raise most_specific(faults)
        self.evidence.passed("key usage")
        return fit

    def _trust(
        self, inner: InnerMessage, signers: list[Certificate], certificates: list[Certificate], signed: SignedContent
    ) -> tuple[str, ...]:
        """The recipients whose anchors accept a signer.

        Raises:
            RejectionError: nobody's do, with the most specific cause; ROUTING_TAMPER when nobody local is named.
        """
        recipients = self.agent.local(self.envelope.recipients or inner.recipients)
        if not recipients:
            raise RejectionError(Reason.ROUTING_TAMPER, "nobody in the signed To or Cc is local")
        check = RevocationCheck(
            self.agent.revocation,
            self.agent.fetcher.session(),
            self.at,
            hard=self.agent.hard_revocation,
            own_crls=message_crls(signed.signatures.crls),
            own_certificates=certificates,
        )
        examination = TrustExamination(self.at, check, certificates, self.evidence)
        for recipient in recipients:
            decision = examination.decide(recipient, signers, self.agent.anchors.anchors_for(recipient))
            self.evidence.trust.append(decision)
        accepted = tuple(t.recipient for t in self.evidence.trust if t.reason is Reason.OK)
        if not accepted:
            raise most_specific([RejectionError(t.reason, t.detail) for t in self.evidence.trust])
        self._keep_chain(inner.sender, signers, examination)
        self.evidence.passed("trust", f"{len(accepted)} of {len(recipients)} recipients")
        return accepted

    def _keep_chain(self, sender: Mailbox, signers: list[Certificate], examination: TrustExamination) -> None:
        """Name the accepted signer and put its certificate and chain first in the evidence."""
        accepted = next(s for s in signers if examination.chain_of(s))
        self.evidence.signer = accepted.as_signer(binding(accepted, sender) or "")
        chain = examination.chain_of(accepted)
        self.evidence.certificates = dict.fromkeys((*(c.der for c in chain), *self.evidence.certificates))

    def _accepted(self, inner: InnerMessage, sender: Mailbox, delivered_to: tuple[str, ...]) -> Judgement:
        evidence = self.evidence
        return Judgement(
            reason=Reason.OK,
            detail="",
            delivered_to=delivered_to,
            trust=tuple(evidence.trust),
            sender=sender.normalised,
            signer=evidence.signer,
            algorithms=evidence.algorithms,
            wrapped=inner.wrapped,
            message_id=inner.message_id,
            subject=inner.subject,
            inner_sha256=inner.sha256,
            content=inner.content,
            protected_offset=inner.protected_offset,
            checks=tuple(evidence.checks),
            certificates=tuple(evidence.certificates),
            policy_version=POLICY_VERSION,
        )


def _rejection(reason: Reason, detail: str, evidence: Evidence) -> Judgement:
    return Judgement(
        reason=reason,
        detail=detail,
        trust=tuple(evidence.trust),
        signer=evidence.signer,
        algorithms=evidence.algorithms,
        wrapped=evidence.wrapped,
        message_id=evidence.message_id,
        subject=evidence.subject,
        checks=tuple(evidence.checks),
        certificates=tuple(evidence.certificates),
        policy_version=POLICY_VERSION,
    )
