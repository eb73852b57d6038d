"""What a certificate says about where to ask: CRL distribution points, issuers and OCSP (AS-66, AS-71).

These URLs are an attacker's until the path is proven, so they only ever go to the guarded fetcher, and what they lead
to is kept apart from what trusted certificates lead to (``reply_cache``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from gateway.sta.certificates import Certificate, parse_many
from gateway.sta.fetching.fetcher import FetchError, FetchSession
from gateway.sta.fetching.reply_cache import ISSUERS, Reply, ReplyCache
from gateway.sta.revocation.data_signatures import is_signed
from gateway.sta.trust_anchors.certificate_files import certificate_ders

MAX_URLS = 3
MAX_ISSUERS_IN_REPLY = 16
MAX_READ_IN_REPLY = 128
MAX_PROOFS = 4
"""Of the certificates that bear the issuer's name so many have their key tried on a certificate: a key of a stranger's
choice may be slow to use, and what is not proven here may still be found by the search for paths."""
MAX_ISSUER_REPLY_BYTES = 1024 * 1024
MAX_ISSUER_AGE = timedelta(days=1)


def distribution_points(certificate: Certificate) -> list[str]:
    """The http(s) URLs of the certificate's CRL distribution points (RFC 5280 4.2.1.13)."""
    return _point_urls(lambda: certificate.asn1.crl_distribution_points_value)


def freshest_points(certificate_or_list: Any) -> list[str]:
    """The http(s) URLs of the delta CRLs that a certificate or a base CRL (parsed) names (RFC 5280 4.2.1.15, 5.2.6)."""
    return _point_urls(lambda: certificate_or_list.freshest_crl_value)


def access_urls(certificate: Certificate, method: str) -> list[str]:
    """The http(s) URLs of the certificate's authority information access for ``ocsp`` or ``ca_issuers``."""
    try:
        locations = [
            item["access_location"]
            for item in certificate.asn1.authority_information_access_value or ()
            if item["access_method"].native == method
        ]
    except Exception:  # noqa: BLE001 - asn1crypto raises many types on hostile input
        return []
    return _urls(locations)


def _point_urls(read: Any) -> list[str]:
    names: list[Any] = []
    try:
        for point in read() or ():
            name = point["distribution_point"]
            if name and name.name == "full_name":
                names += name.chosen
    except Exception:  # noqa: BLE001 - asn1crypto raises many types on hostile input
        return []
    return _urls(names)


def _urls(names: Iterable[Any]) -> list[str]:
    """The http(s) URLs among general names, each once; their octets as they stand in the certificate."""
    try:
        # The parser's own reading turns an encoded international host name into one that cannot be sent. What is not
        # ASCII is refused by the fetcher.
        found = [
            name.chosen.contents.decode("ascii", "replace")
            for name in names
            if name.name == "uniform_resource_identifier"
        ]
    except Exception:  # noqa: BLE001 - asn1crypto raises many types on hostile input
        return []
    return [url for url in dict.fromkeys(found) if url.lower().startswith(("http://", "https://"))]


def fetch_issuers(
    certificate: Certificate, session: FetchSession, notes: list[str], cache: ReplyCache, at: datetime
) -> list[Certificate]:
    """Fetch the issuers that a certificate names by AIA caIssuers: DER, PEM or a ``.p7c`` bundle (AS-66).

    At most MAX_ISSUERS_IN_REPLY certificates of each URL: the one whose key made the certificate, then those that bear
    the issuer's name. What cannot be had is told in ``notes``. A reply is kept whole, for all who name the URL, for a
    day at most and not beyond the validity of what is in it; and only when a key in it is proven to have made the
    certificate that it was fetched for. Where what is kept does not show that for another certificate, the URL is
    asked again: whoever once answered in the place of the authority would else hide the real issuer for a day.
    """
    found: dict[Certificate, None] = {}
    for url in access_urls(certificate, "ca_issuers")[:MAX_URLS]:
        fetched: list[Certificate | None] = []

        def load(url: str = url, fetched: list[Certificate | None] = fetched) -> Reply:
            body = session.get(url, MAX_ISSUER_REPLY_BYTES)
            try:
                new = parse_many(certificate_ders(body), MAX_READ_IN_REPLY)
            except ValueError:
                new = []
            if not new:
                raise FetchError("what was fetched is no certificate")
            fetched.append(_maker(certificate, new))
            return Reply(tuple(new), _keep_until(new, at) if fetched[-1] else None, sum(len(c.der) for c in new))

        offered: Sequence[Certificate] = ()
        maker = None
        try:
            offered = cache.obtain((ISSUERS, url, b""), at, session.remaining, load)
            maker = fetched[0] if fetched else _maker(certificate, offered)
            if maker is None and not fetched:
                key = (ISSUERS, url, bytes.fromhex(certificate.sha256))
                offered = cache.obtain(key, at, session.remaining, load)
                maker = _maker(certificate, offered)
        except FetchError as exc:
            notes.append(f"an issuer was not fetched: {exc}")
        first = [] if maker is None else [maker]
        ordered = dict.fromkeys([*first, *_named(certificate, offered), *offered])
        found.update(dict.fromkeys(list(ordered)[:MAX_ISSUERS_IN_REPLY]))
    return list(found)


def _named(certificate: Certificate, offered: Sequence[Certificate]) -> list[Certificate]:
    """Those that bear the issuer's name, with the key that the certificate names first."""
    named = [c for c in offered if c.subject_key == certificate.issuer_key]
    wanted = certificate.authority_key_id
    return sorted(named, key=lambda c: wanted is not None and c.key_id != wanted)


def _maker(certificate: Certificate, offered: Sequence[Certificate]) -> Certificate | None:
    """The one whose key is proven to have made the certificate; None when that is shown of none."""
    return next((c for c in _named(certificate, offered)[:MAX_PROOFS] if _is_made_by(certificate, c)), None)


def _is_made_by(certificate: Certificate, issuer: Certificate) -> bool:
    """Whether the issuer's key made the certificate; what cannot be checked proves nothing."""
    try:
        algorithm, signature = certificate.asn1["signature_algorithm"], certificate.asn1["signature_value"].native
        body = certificate.asn1["tbs_certificate"].dump()
    except Exception:  # noqa: BLE001 - asn1crypto raises many types on hostile input
        return False
    return is_signed(issuer.public_key_der, algorithm, signature, body) is True


def _keep_until(offered: Sequence[Certificate], at: datetime) -> datetime:
    return min([at + MAX_ISSUER_AGE, *(c.not_after for c in offered if c.not_after > at)])
