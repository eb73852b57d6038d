"""What a certificate says about where to ask: CRL distribution points, issuers and OCSP (AS-66, AS-71).

These URLs are an attacker's until the path is proven, so they only ever go to the guarded fetcher. Replies are kept
until their own nextUpdate (AS-70), with a bound on how many.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.ocsp import OCSPRequestBuilder

from gateway.sta.anchors import certificate_ders
from gateway.sta.certificates import Certificate, CertificateError, parse_many
from gateway.sta.fetcher import FetchError, FetchSession

MAX_CACHED_REPLIES = 256
MAX_URLS = 3
MAX_ISSUERS_IN_REPLY = 16


@dataclass
class ReplyCache:
    """Fetched replies by URL (and request), each until its own nextUpdate. Shared by worker threads."""

    entries: OrderedDict[tuple[str, bytes], tuple[datetime, Any]] = field(default_factory=OrderedDict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, key: tuple[str, bytes], at: datetime) -> Any | None:
        """The reply, unless it is out of date at the moment."""
        with self.lock:
            found = self.entries.get(key)
            return found[1] if found and at < found[0] else None

    def put(self, key: tuple[str, bytes], until: datetime, reply: Any) -> None:
        """Remember a reply; the oldest one goes when the cache is full."""
        with self.lock:
            self.entries[key] = (until, reply)
            self.entries.move_to_end(key)
            while len(self.entries) > MAX_CACHED_REPLIES:
                self.entries.popitem(last=False)


def ocsp_request(certificate: Certificate, issuer: Certificate) -> bytes:
    """The OCSP request for one certificate, DER (RFC 6960 4.1, RFC 5019 2.1.1)."""
    name = issuer.asn1.subject
    key = issuer.asn1.public_key
    digest = hashes.Hash(hashes.SHA1())  # noqa: S303 - RFC 5019 2.1.1: a SHA-1 CertID is an index, not a protection
    digest.update(name.dump())
    name_hash = digest.finalize()
    digest = hashes.Hash(hashes.SHA1())  # noqa: S303
    # The key's bits without tag, length and the count of unused bits (RFC 6960 4.1.1).
    digest.update(key["public_key"].contents[1:])
    request = OCSPRequestBuilder().add_certificate_by_hash(
        name_hash,
        digest.finalize(),
        certificate.serial,
        hashes.SHA1(),  # noqa: S303
    )
    return request.build().public_bytes(Encoding.DER)


def distribution_points(certificate: Certificate) -> list[str]:
    """The http(s) URLs of the certificate's CRL distribution points."""
    try:
        points = certificate.asn1.crl_distribution_points_value or ()
        found = []
        for point in points:
            name = point["distribution_point"]
            if name and name.name == "full_name":
                found += [str(n.chosen.native) for n in name.chosen if n.name == "uniform_resource_identifier"]
    except Exception:  # noqa: BLE001
        return []
    return [url for url in dict.fromkeys(found) if url.lower().startswith(("http://", "https://"))]


def access_urls(certificate: Certificate, method: str) -> list[str]:
    """The http(s) URLs of the certificate's authority information access for ``ocsp`` or ``ca_issuers``."""
    try:
        found = [
            str(item["access_location"].chosen.native)
            for item in certificate.asn1.authority_information_access_value or ()
            if item["access_method"].native == method and item["access_location"].name == "uniform_resource_identifier"
        ]
    except Exception:  # noqa: BLE001
        return []
    return [url for url in dict.fromkeys(found) if url.lower().startswith(("http://", "https://"))]


def fetch_issuers(
    certificate: Certificate, session: FetchSession, notes: list[str], cache: ReplyCache, at: datetime
) -> list[Certificate]:
    """Fetch the issuers that a certificate names by AIA caIssuers: DER, PEM or a .p7c bundle (AS-66)."""
    found: list[Certificate] = []
    for url in access_urls(certificate, "ca_issuers")[:MAX_URLS]:
        cached = cache.get((url, b"aia"), at)
        if cached is not None:
            found += cached
            continue
        try:
            new = parse_many(certificate_ders(session.get(url)), MAX_ISSUERS_IN_REPLY)
        except FetchError as exc:
            notes.append(f"an issuer was not fetched: {exc}")
            continue
        except (ValueError, CertificateError):
            notes.append("what was fetched as an issuer is no certificate")
            continue
        if new:
            cache.put((url, b"aia"), min(c.not_after for c in new), new)
        found += new
    return found
