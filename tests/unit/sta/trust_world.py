"""A small world of authorities, correspondents and messages at one fixed moment, for the tests of the agent.

Made with ``cryptography`` alone; messages come from ``tests.support.direct_messages`` (an independent stack).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from asn1crypto import algos as asn1_algos
from asn1crypto import core as asn1_core
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from gateway.core.message import Envelope
from gateway.core.trust import Direction
from gateway.core.verdict import Judgement
from gateway.keys.file_key import FileKey
from gateway.keys.key_ring import KeyRing
from gateway.sta.agent import SecurityTrustAgent
from gateway.sta.certificates import Certificate
from gateway.sta.fetching.fetcher import Fetcher
from gateway.sta.revocation.crls import RevocationList
from gateway.sta.revocation.revocation import RevocationSource
from gateway.sta.trust_anchors.anchors import AnchorStore
from gateway.sta.trust_policy import TrustPolicy
from tests.support.direct_messages import CryptographyStack, inner_message, outer_message, wrapped_entity
from tests.support.pki import Identity, Key, rsa_key

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
SENDER = "jane@direct.sender.example"
RCPT = "ann@direct.clinic.example"
OTHER = "bob@direct.clinic.example"
STACK = CryptographyStack()
USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)
EMAIL = (ExtendedKeyUsageOID.EMAIL_PROTECTION,)
_serials = itertools.count(10_000)


def name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def usage(**on: bool) -> x509.KeyUsage:
    return x509.KeyUsage(**{one: on.get(one, False) for one in USAGES})


@dataclass(frozen=True)
class CA:
    """An authority; ``identity`` holds its certificate and key."""

    identity: Identity

    @property
    def certificate(self) -> Certificate:
        return certificate_of(self.identity)

    @classmethod
    def root(cls, common_name: str, slot: int, **options: object) -> CA:
        key = rsa_key(slot)
        return cls(_ca(common_name, key, name(common_name), key, **options))

    def below(self, common_name: str, slot: int, **options: object) -> CA:
        key = rsa_key(slot)
        return CA(_ca(common_name, key, self.identity.certificate.subject, self.identity.key, **options))

    def issue(
        self,
        names: Sequence[x509.GeneralName] | str = SENDER,
        *,
        slot: int = 50,
        key: Key | None = None,
        begins: datetime = NOW - timedelta(days=30),
        ends: datetime = NOW + timedelta(days=300),
        key_usage: x509.KeyUsage | None = None,
        purposes: Sequence[x509.ObjectIdentifier] = EMAIL,
        extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
        is_ca: bool = False,
        subject: str = "leaf",
    ) -> Identity:
        if isinstance(names, str):
            names = [x509.RFC822Name(names) if "@" in names else x509.DNSName(names)]
        leaf_key = key or rsa_key(slot)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(self.identity.certificate.subject)
            .public_key(leaf_key.public_key())
            .serial_number(next(_serials))
            .not_valid_before(begins)
            .not_valid_after(ends)
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if key_usage is not None:
            builder = builder.add_extension(key_usage, critical=True)
        if purposes:
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        for extension, critical in extra:
            builder = builder.add_extension(extension, critical=critical)
        return Identity(builder.sign(self.identity.key, hashes.SHA256()), leaf_key)

    def crl(
        self,
        revoked: Sequence[Identity] = (),
        *,
        begins: datetime = NOW - timedelta(days=1),
        ends: datetime = NOW + timedelta(days=6),
        revoked_at: datetime = NOW - timedelta(days=2),
        reason: x509.ReasonFlags | None = None,
        extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
        key: Key | None = None,
    ) -> bytes:
        """A CRL, DER."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.identity.certificate.subject)
            .last_update(begins)
            .next_update(ends)
        )
        for identity in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(identity.certificate.serial_number)
            entry = entry.revocation_date(revoked_at)
            if reason is not None:
                entry = entry.add_extension(x509.CRLReason(reason), critical=False)
            builder = builder.add_revoked_certificate(entry.build())
        for extension, critical in extra:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(key or self.identity.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def _ca(common_name: str, key: Key, issuer: x509.Name, issuer_key: Key, **options: object) -> Identity:
    begins, ends = options.get("begins", NOW - timedelta(days=400)), options.get("ends", NOW + timedelta(days=4000))
    path_length, is_ca = options.get("path_length"), options.get("is_ca", True)
    assert isinstance(begins, datetime)
    assert isinstance(ends, datetime)
    assert path_length is None or isinstance(path_length, int)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(common_name))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(next(_serials))
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca=bool(is_ca), path_length=path_length), critical=True)
        .add_extension(usage(key_cert_sign=True, crl_sign=bool(options.get("crl_sign", True))), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    aia = options.get("aia")
    if isinstance(aia, str):
        builder = builder.add_extension(issuers_at(aia), critical=False)
    points = options.get("points")
    if isinstance(points, x509.CRLDistributionPoints):
        builder = builder.add_extension(points, critical=False)
    return Identity(builder.sign(issuer_key, hashes.SHA256()), key)


def issuers_at(url: str) -> x509.AuthorityInformationAccess:
    return _access(AuthorityInformationAccessOID.CA_ISSUERS, url)


def ocsp_at(url: str) -> x509.AuthorityInformationAccess:
    return _access(AuthorityInformationAccessOID.OCSP, url)


def _access(method: x509.ObjectIdentifier, url: str) -> x509.AuthorityInformationAccess:
    location = x509.UniformResourceIdentifier(url)
    return x509.AuthorityInformationAccess([x509.AccessDescription(method, location)])


def crl_at(url: str) -> x509.CRLDistributionPoints:
    location = x509.UniformResourceIdentifier(url)
    return x509.CRLDistributionPoints([x509.DistributionPoint([location], None, None, None)])


def certificate_of(identity: Identity) -> Certificate:
    return Certificate(identity.certificate.public_bytes(serialization.Encoding.DER))


def resigned_with_sha1(identity: Identity, issuer_key: Key) -> Identity:
    """The same certificate, its signature made again with SHA-1 (``cryptography`` refuses to make one)."""
    assert isinstance(issuer_key, rsa.RSAPrivateKey)
    raw = asn1_x509.Certificate.load(identity.certificate.public_bytes(serialization.Encoding.DER))
    algorithm = asn1_algos.SignedDigestAlgorithm({"algorithm": "sha1_rsa"})
    raw["tbs_certificate"]["signature"] = algorithm
    raw["signature_algorithm"] = algorithm
    body = raw["tbs_certificate"].dump(force=True)
    signature = issuer_key.sign(body, padding.PKCS1v15(), hashes.SHA1())  # noqa: S303 - a forbidden one is wanted
    raw["signature_value"] = asn1_core.OctetBitString(signature)
    return Identity(x509.load_der_x509_certificate(raw.dump(force=True)), identity.key)


@dataclass
class World:
    """A clinic with one key per address, a trusted community and a stranger."""

    community: CA = field(default_factory=lambda: CA.root("Community CA", 1))
    stranger: CA = field(default_factory=lambda: CA.root("Stranger CA", 2))
    clinic: CA = field(default_factory=lambda: CA.root("Clinic CA", 3))

    def __post_init__(self) -> None:
        self.rcpt = self.clinic.issue(RCPT, slot=51)
        self.other = self.clinic.issue(OTHER, slot=52)
        self.signer = self.community.issue(SENDER, slot=50)

    def ring(self, *identities: Identity) -> KeyRing:
        keys = []
        for identity in identities or (self.rcpt, self.other):
            certificate = certificate_of(identity)
            names = tuple(n.value for n in certificate.names)
            keys.append(FileKey(certificate.der, names, (), certificate.not_before, "test", identity.key))
        return KeyRing(keys)

    def agent(
        self,
        *,
        anchors: AnchorStore | None = None,
        crls: Sequence[bytes] = (),
        fetcher: Fetcher | None = None,
        hard: bool = False,
        ring: KeyRing | None = None,
    ) -> SecurityTrustAgent:
        return SecurityTrustAgent(
            ring or self.ring(),
            anchors if anchors is not None else AnchorStore((self.community.certificate,)),
            RevocationSource([RevocationList(der) for der in crls]),
            fetcher or Fetcher(),
            TrustPolicy(hard_revocation=frozenset({Direction.INBOUND} if hard else ())),
        )

    def inner(self, *, sender: str = SENDER, to: Sequence[str] = (RCPT,), **options: object) -> bytes:
        return inner_message(sender, list(to), **options)  # type: ignore[arg-type]

    def message(
        self,
        inner: bytes | None = None,
        *,
        entity: bytes | None = None,
        signer: Identity | None = None,
        chain: Sequence[CA | Identity] = (),
        to: Sequence[Identity] | None = None,
        outer_from: str = SENDER,
        outer_to: Sequence[str] = (RCPT,),
    ) -> bytes:
        """Wrap, sign and encrypt; ``entity`` instead of ``inner`` is signed as it is."""
        signed_entity = entity if entity is not None else wrapped_entity(inner if inner is not None else self.inner())
        others = [one.identity if isinstance(one, CA) else one for one in chain]
        return self.sealed(STACK.sign(signed_entity, signer or self.signer, others), to, outer_from, outer_to)

    def sealed(
        self,
        content: bytes,
        to: Sequence[Identity] | None = None,
        outer_from: str = SENDER,
        outer_to: Sequence[str] = (RCPT,),
    ) -> bytes:
        return outer_message(STACK.encrypt(content, list(to or (self.rcpt,))), outer_from, list(outer_to))

    def judge(
        self,
        raw: bytes,
        agent: SecurityTrustAgent | None = None,
        *,
        mail_from: str | None = SENDER,
        rcpt: Sequence[str] = (RCPT,),
        at: datetime = NOW,
    ) -> Judgement:
        return (agent or self.agent()).judge(raw, Envelope(mail_from, tuple(rcpt)), at)


def notes(judgement: Judgement, check: str) -> list[str]:
    return [c.detail for c in judgement.checks if c.name == check and c.outcome == "noted"]
