"""A chain with a CRL and an OCSP responder, served by a real web server, for the tests of revocation.

The responder is made with ``cryptography``'s builder; what a test wants wrong in an answer is said with ``Answer``.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from gateway.sta.certificates import Certificate
from gateway.sta.fetching.fetcher import Fetcher
from gateway.sta.paths.path_building import Path
from gateway.sta.revocation.crls import MESSAGE, RevocationList
from gateway.sta.revocation.findings import Finding
from gateway.sta.revocation.revocation import RevocationCheck, RevocationSource
from tests.support.pki import Identity
from tests.unit.sta.conftest import Web
from tests.unit.sta.trust_world import CA, NOW, certificate_of, ocsp_at

LOOPBACK = Fetcher.within(["127.0.0.0/8"])
"""With the limits of the product, for tests of what they do."""
PATIENCE_SECONDS = 300.0
"""How long a message may wait for these web servers. The product gives a server two seconds, and a machine that is busy
with other things may take longer to answer from loopback: then the test would judge the machine."""
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
Handler = Callable[[BaseHTTPRequestHandler, bytes], None]


@dataclass(frozen=True)
class Answer:
    """What a responder says; the defaults make a good and fresh answer of the issuer itself."""

    certificate: x509.Certificate
    issuer: x509.Certificate
    by: Identity
    status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD
    algorithm: hashes.HashAlgorithm = field(default_factory=hashes.SHA1)
    this_update: datetime = NOW - HOUR
    next_update: datetime | None = NOW + HOUR
    revoked_at: datetime = NOW - DAY
    reason: x509.ReasonFlags | None = x509.ReasonFlags.key_compromise
    enclosed: tuple[x509.Certificate, ...] = ()
    by_name: bool = True
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = ()

    def but(self, **changes: object) -> Answer:
        return replace(self, **changes)  # type: ignore[arg-type]

    @property
    def der(self) -> bytes:
        revoked = self.status is ocsp.OCSPCertStatus.REVOKED
        encoding = ocsp.OCSPResponderEncoding.NAME if self.by_name else ocsp.OCSPResponderEncoding.HASH
        builder = (
            ocsp.OCSPResponseBuilder()
            .add_response(
                cert=self.certificate,
                issuer=self.issuer,
                algorithm=self.algorithm,
                cert_status=self.status,
                this_update=self.this_update,
                next_update=self.next_update,
                revocation_time=self.revoked_at if revoked else None,
                revocation_reason=self.reason if revoked else None,
            )
            .responder_id(encoding, self.by.certificate)
        )
        if self.enclosed:
            builder = builder.certificates(list(self.enclosed))
        for extension, critical in self.extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self.by.key, hashes.SHA256()).public_bytes(Encoding.DER)


def loopback() -> Fetcher:
    """A fetcher for this machine alone, on which no time limit and no earlier request has a bearing."""
    return Fetcher.within(["127.0.0.0/8"], seconds_per_message=PATIENCE_SECONDS)


def send(request: BaseHTTPRequestHandler, body: bytes, status: int = 200) -> None:
    request.send_response(status)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


@dataclass
class Scene:
    """A sender below an authority, with an OCSP responder at ``/ocsp``."""

    authority: CA
    web: Web
    signer: Identity
    source: RevocationSource

    @classmethod
    def build(cls, authority: CA, web: Web, **options: object) -> Scene:
        signer = authority.issue(extra=[(ocsp_at(web.url("/ocsp")), False)], **options)  # type: ignore[arg-type]
        return cls(authority, web, signer, RevocationSource())

    @property
    def path(self) -> Path:
        return (certificate_of(self.signer), self.authority.certificate)

    @property
    def good(self) -> Answer:
        return Answer(self.signer.certificate, self.authority.identity.certificate, self.authority.identity)

    def responder(
        self,
        *,
        by: CA | None = None,
        purposes: Sequence[x509.ObjectIdentifier] = (ExtendedKeyUsageOID.OCSP_SIGNING,),
        no_check: bool = True,
        extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
        begins: datetime = NOW - 30 * DAY,
        ends: datetime = NOW + 30 * DAY,
    ) -> Identity:
        """A responder with a certificate of its own."""
        extensions = [*extra, *([(x509.OCSPNoCheck(), False)] if no_check else [])]
        return (by or self.authority).issue(
            [], slot=77, purposes=purposes, extra=extensions, subject="responder", begins=begins, ends=ends
        )

    def forget(self) -> None:
        """Begin with an empty cache."""
        self.source = RevocationSource()

    def serve(self, answer: Answer | bytes) -> None:
        self.web.replies["/ocsp"] = answer if isinstance(answer, bytes) else answer.der

    def ask(self, at: datetime = NOW, *, hard: bool = True) -> Finding:
        return ask(self.source, self.path, at, hard=hard)


def ask(
    source: RevocationSource,
    path: Path,
    at: datetime = NOW,
    *,
    hard: bool = True,
    own: Sequence[bytes] = (),
    others: Sequence[Certificate] = (),
    fetcher: Fetcher | None = None,
) -> Finding:
    """The finding for the first certificate of the path; each question has a fetcher, and its allowance, of its own."""
    crls = [RevocationList(der, MESSAGE) for der in own]
    session = (fetcher or loopback()).session()
    check = RevocationCheck(source, session, at, hard, own_crls=crls, own_certificates=others)
    return check.check(path)[-1]


def operators(*crls: bytes) -> RevocationSource:
    return RevocationSource([RevocationList(der) for der in crls])


def iso(moment: datetime) -> str:
    return moment.astimezone(dt.UTC).isoformat()
