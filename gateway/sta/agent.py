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
from functools import partial

from gateway.core.address import normalise
from gateway.core.errors import InputError, KeyUnavailableError, RejectionError
from gateway.core.message import Envelope
from gateway.core.mime.headers import ResourceLimitError
from gateway.core.trust import Direction, FetchedMail
from gateway.core.verdict import Judgement, Reason
from gateway.observability.log import get_log
from gateway.ports import KeyRing
from gateway.sta.algorithm_policy import AlgorithmPolicy
from gateway.sta.certificates import Certificate, parse_many
from gateway.sta.cms.key_index import KeyIndex
from gateway.sta.cms.private_buffer import Span
from gateway.sta.evidence import Evidence
from gateway.sta.fetching.fetcher import Fetcher
from gateway.sta.hints import missing_key
from gateway.sta.identity import Mailbox, binding, first_identity, name_count, named_recipients
from gateway.sta.mime.inner_message import InnerMessage, open_inner, shown
from gateway.sta.mime.mime_entity import Entity, canonical_line_ends, read_entity
from gateway.sta.paths.certificate_rules import check_leaf
from gateway.sta.paths.path_cache import PathCache
from gateway.sta.paths.path_validation import ChainAlgorithms
from gateway.sta.revocation.crls import message_crls
from gateway.sta.revocation.revocation import RevocationCheck, RevocationSource
from gateway.sta.routing import check_routing, traced_envelope
from gateway.sta.signers import Signature, examine_signers
from gateway.sta.trust import TrustExamination, most_specific
from gateway.sta.trust_anchors.anchors import AnchorStore
from gateway.sta.trust_policy import TrustPolicy
from gateway.sta.unwrapper import SignedContent, unwrap

MAX_MESSAGE_BYTES = 72 * 1024 * 1024
"""An attachment of 25 MiB in a signature that encloses it has three layers of base64: 67 MB."""
MAX_CERTIFICATES = 32
FEW_RECIPIENTS = 8
"""The keys of so many are kept found."""
MAX_REMEMBERED_RECIPIENTS = 1_024
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
    policy: TrustPolicy = field(default_factory=TrustPolicy)
    paths: PathCache = field(default_factory=PathCache)
    """Belongs to these anchors and lists: whoever changes one makes a new agent."""
    known: tuple[Certificate, ...] = ()
    """Certificates of earlier evidence, to judge a message again without fetching. They help to find signers and
    paths, and count no more than those that a message carries."""
    _local_names: tuple[frozenset[str], frozenset[str]] | None = field(default=None, init=False, repr=False)
    _index: tuple[frozenset[str], KeyIndex] | None = field(default=None, init=False, repr=False)
    """All keys. Like the one above it holds for the names that it was made of."""
    _indexes: tuple[frozenset[str], dict[tuple[str, ...], KeyIndex]] | None = field(
        default=None, init=False, repr=False
    )
    """The keys of recipients: the same few get mail again and again."""

    def judge(self, raw: bytes, envelope: Envelope, at: datetime) -> Judgement:
        """Judge a message as of the (aware) moment. Never raises for what the message holds.

        Raises:
            KeyUnavailableError: a key that may open the message lies on a token that does not work now. Judge it later.
        """
        evidence = Evidence(policy_version=self.policy.version)
        try:
            return _Examination(self, raw, envelope, at, evidence).run()
        except RejectionError as fault:
            return _rejection(fault.reason, fault.detail, evidence)
        except KeyUnavailableError:
            raise  # A fault of ours that passes; a verdict would outlast it.
        except (ResourceLimitError, MemoryError, RecursionError):
            return _rejection(Reason.RESOURCE_LIMIT, "the message exceeds a safety limit", evidence)
        except Exception as exc:  # noqa: BLE001 - the last line of defence: the message stays in quarantine
            # Only the class and the place of the fault are logged: its text could quote the message.
            log.fault("message_not_examined", exc)
            return _rejection(Reason.MALFORMED, f"the message could not be examined ({type(exc).__name__})", evidence)

    def local_names(self) -> tuple[frozenset[str], frozenset[str]]:
        """The addresses that have a key, and the local domains: those of every key."""
        names = self.keys.names()
        known = self._local_names
        if known is None or known[0] is not names:
            # The ring gives the same object until its keys change: there may be thousands of names.
            known = self._local_names = names, frozenset(name.rpartition("@")[2] for name in names)
        return known

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

    def keys_to_try(self, envelope: Envelope, outer: Entity) -> KeyIndex:
        """The keys of the local recipients (AS-49).

        Without an envelope the outer To and Cc, which nobody vouches for, only say which keys to try first.
        """
        if envelope.recipients:
            return self._keys_of(tuple(envelope.recipients))
        return self._all_keys().preferring(self.keys.keys_for(self.local(named_recipients(outer.headers))))

    def _keys_of(self, recipients: tuple[str, ...]) -> KeyIndex:
        names = self.keys.names()
        known = self._indexes
        if known is None or known[0] is not names or len(known[1]) > MAX_REMEMBERED_RECIPIENTS:
            known = self._indexes = names, {}
        index = known[1].get(recipients)
        if index is None:
            index = KeyIndex(self.keys.keys_for(self.local(recipients)))
            if len(recipients) <= FEW_RECIPIENTS:
                known[1][recipients] = index
        return index

    def _all_keys(self) -> KeyIndex:
        names = self.keys.names()
        known = self._index
        if known is None or known[0] is not names:
            # A key that is bound to a domain answers for every address in it.
            everyone = [name if "@" in name else f"postmaster@{name}" for name in sorted(names)]
            known = self._index = names, KeyIndex(self.keys.keys_for(everyone))
        return known[1]


@dataclass
class _Examination:
    """One run over one message, top to bottom."""

    agent: SecurityTrustAgent
    raw: bytes
    envelope: Envelope
    at: datetime
    evidence: Evidence

    @property
    def algorithms(self) -> AlgorithmPolicy:
        """The matrix as this gateway applies it."""
        return self.agent.policy.algorithms

    def run(self) -> Judgement:
        outer = self._read_outer()
        self.envelope = traced_envelope(outer.headers, self.envelope, self.agent.policy.fetched_mail)
        signed = self._unwrap(outer)
        certificates = parse_many(signed.signatures.certificates, MAX_CERTIFICATES)
        self.evidence.certificates.update(dict.fromkeys([c.der for c in certificates]))
        signatures, span = self._verify(signed, certificates)
        # A correspondent's own certificate need not come along; the evidence has it all the same.
        self.evidence.certificates.update(dict.fromkeys([s.certificate.der for s in signatures if s.certificate]))
        good = [s for s in signatures if s.facts is not None]
        if not good:
            raise self._no_good_signature(signatures, signed, outer)
        inner = open_inner(span, signed.carrier, outer.headers, signed.head if span is signed.span else None)
        self.evidence.wrapped = inner.wrapped
        if not inner.wrapped and not self.agent.policy.accept_unwrapped:
            raise RejectionError(Reason.MALFORMED, "the message is not wrapped, and this gateway accepts no such")
        sender = inner.sender
        bound = self._bind(signatures, good, sender)
        signers = self._fit_to_sign(bound)
        trusted_by = self._trust(inner, signers, certificates, signed)
        check_routing(inner, outer.headers, self.envelope, self.evidence, self.agent.policy.fetched_mail)
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
            return unwrap(outer, self.agent.keys_to_try(self.envelope, outer), self.evidence, self.algorithms)
        except RejectionError as fault:
            if fault.reason is Reason.CANNOT_DECRYPT:
                if self.envelope.recipients:
                    self._explain_redirection(outer)
                self.evidence.hint = missing_key(outer)
            raise

    def _explain_redirection(self, outer: Entity) -> None:
        """Say what happened to a genuine message that was sent on to people it does not name (AS-45).

        Nobody gets it in either case; the keys of other addresses only tell the cause.

        Raises:
            RejectionError: ROUTING_TAMPER when another key here opens it and its signed To and Cc leave somebody out.
        """
        scratch = Evidence()
        try:
            signed = unwrap(outer, self.agent.keys_to_try(Envelope(None, ()), outer), scratch, self.algorithms)
            certificates = parse_many(signed.signatures.certificates, MAX_CERTIFICATES)
            signatures, span = self._verify(signed, certificates)
            if not any(s.facts for s in signatures):
                return
            inner = open_inner(span, signed.carrier, outer.headers)
            redirected = Envelope(None, self.envelope.recipients)
            check_routing(inner, outer.headers, redirected, scratch, FetchedMail.UNCHECKED)
        except RejectionError as fault:
            if fault.reason is Reason.ROUTING_TAMPER:
                raise

    def _verify(self, signed: SignedContent, certificates: list[Certificate]) -> tuple[list[Signature], Span]:
        """Verify over the bytes as received; only when that fails, over CRLF line ends (S/MIME rule 10, m01).

        The span is what the good signatures are of: nothing else may be delivered.
        """
        others = (*self.agent.known, *self.agent.anchors.correspondents)
        examine = partial(examine_signers, signed.signatures, certificates=certificates, others=others)
        signatures = examine(signed.span.view, policy=self.algorithms)
        if any(s.facts for s in signatures):
            return signatures, signed.span
        if signed.detached and any(s.fault and s.fault.reason is Reason.BAD_SIGNATURE for s in signatures):
            canonical = canonical_line_ends(signed.span.view)
            if canonical is not None:
                second = examine(canonical, policy=self.algorithms)
                if any(s.facts for s in second):
                    self.evidence.noted("signature", "verified only after bare LF line ends were made CRLF")
                    return second, Span.whole(canonical)
        return signatures, signed.span

    def _no_good_signature(self, signatures: list[Signature], signed: SignedContent, outer: Entity) -> RejectionError:
        """The fault to tell when no signature verified: that of the sender's own signer before a stranger's.

        The From that is read for this is not verified; it only picks a cause.
        """
        for signature in signatures:
            if signature.fault is not None:
                self.evidence.failed("signature", f"signer {signature.position}: {signature.fault.detail}")
        told = signatures[0]
        try:
            sender = open_inner(signed.span, signed.carrier, outer.headers).sender
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
        at_hand = list(dict.fromkeys((*certificates, *self.agent.known)))
        check = RevocationCheck(
            self.agent.revocation,
            self.agent.fetcher.session(),
            self.at,
            hard=Direction.INBOUND in self.agent.policy.hard_revocation,
            own_crls=message_crls(signed.signatures.crls),
            own_certificates=at_hand,
            algorithms=ChainAlgorithms(self.algorithms),
        )
        store, policy = self.agent.anchors, self.agent.policy
        # A notification answers what was sent, so trust in the direction of sending suffices for it (AS-73).
        anchors_for = store.anchors_for_notification if inner.is_notification else store.anchors_for
        examination = TrustExamination(self.at, check, at_hand, self.evidence, policy, paths=self.agent.paths)
        for recipient in recipients:
            self.evidence.trust.append(examination.decide(recipient, signers, anchors_for(recipient)))
        accepted = tuple(t.recipient for t in self.evidence.trust if t.reason is Reason.OK)
        if not accepted:
            raise most_specific([RejectionError(t.reason, t.detail) for t in self.evidence.trust])
        self.evidence.hint = ""
        self._keep_chain(inner.sender, signers, examination)
        self.evidence.passed("trust", f"{len(accepted)} of {len(recipients)} recipients")
        return accepted

    def _keep_chain(self, sender: Mailbox, signers: list[Certificate], examination: TrustExamination) -> None:
        """Name the accepted signer and put its certificate and chain first in the evidence."""
        accepted, chain = next((s, chain) for s in signers if (chain := examination.chain_of(s)))
        self.evidence.signer = accepted.as_signer(binding(accepted, sender) or "")
        self.evidence.certificates = dict.fromkeys([*(c.der for c in chain), *self.evidence.certificates])

    def _accepted(self, inner: InnerMessage, sender: Mailbox, delivered_to: tuple[str, ...]) -> Judgement:
        evidence = self.evidence
        inner_sha256 = inner.sha256  # Before the bytes are taken: afterwards the span is no more.
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
            inner_sha256=inner_sha256,
            content=inner.span.take(inner.prefix),
            # What a wrapped message delivers is exactly what its signature protects.
            content_sha256="" if inner.prefix else inner_sha256,
            protected_offset=len(inner.prefix),
            checks=tuple(evidence.checks),
            certificates=tuple(evidence.certificates),
            revocation=tuple(evidence.revocation),
            revocation_data=tuple(evidence.revocation_data),
            anchor_sets=evidence.anchor_sets,
            policy_version=evidence.policy_version,
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
        revocation=tuple(evidence.revocation),
        revocation_data=tuple(evidence.revocation_data),
        anchor_sets=evidence.anchor_sets,
        policy_version=evidence.policy_version,
        hint=evidence.hint,
    )
