"""The rules of Direct for one certificate by itself: its form, and what it may be used for (AS-12, AS-38, AS-65).

Nothing here says whether a certificate is trusted; it says which ones are unfit whoever issued them. Stricter than
the library: doubled extensions, serial numbers below one and unbounded numbers of names are refused.

Failure modes: :class:`RejectionError` with KEY_USAGE, WEAK_ALGORITHM or UNTRUSTED and a precise detail; what cannot
be read is unfit.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from gateway.core.errors import RejectionError
from gateway.core.verdict import Reason
from gateway.sta.algorithm_policy import AGREEMENT_CURVES, DEFAULT_POLICY, X25519, AlgorithmPolicy, weak
from gateway.sta.certificates import MAX_REMEMBERED, Certificate, CertificateError
from gateway.sta.cms.der import sequence
from gateway.sta.cms.rsa_bounds import check_rsa_public_key

MAX_NAMES = 128
MAX_NAME_CONSTRAINTS = 512
_ANCHOR_CURVES = frozenset({"secp256r1", "secp384r1", "secp521r1"})
_EMAIL_PROTECTION = "1.3.6.1.5.5.7.3.4"
_ANY_EXTENDED_USAGE = "2.5.29.37.0"
_KNOWN_CRITICAL = frozenset(
    {
        "2.5.29.9",  # subject directory attributes
        "2.5.29.14",  # subject key identifier
        "2.5.29.15",  # key usage
        "2.5.29.17",  # subject alternative name
        "2.5.29.18",  # issuer alternative name
        "2.5.29.19",  # basic constraints
        "2.5.29.30",  # name constraints
        "2.5.29.31",  # CRL distribution points
        "2.5.29.32",  # certificate policies
        "2.5.29.33",  # policy mappings
        "2.5.29.35",  # authority key identifier
        "2.5.29.36",  # policy constraints
        "2.5.29.37",  # extended key usage
        "2.5.29.46",  # freshest CRL
        "2.5.29.54",  # inhibit any-policy
        "1.3.6.1.5.5.7.1.1",  # authority information access
        "1.3.6.1.5.5.7.1.3",  # qualified certificate statements
    }
)


@dataclass(frozen=True, slots=True)
class _Uses:
    """What a certificate says that it is for; None where it says nothing."""

    is_ca: bool | None
    usages: frozenset[str] | None
    purposes: frozenset[str] | None

    @property
    def for_mail(self) -> bool:
        return self.purposes is None or bool(self.purposes & {_EMAIL_PROTECTION, _ANY_EXTENDED_USAGE})


def _uses(certificate: Certificate, what: str) -> _Uses:
    try:
        constraints = certificate.asn1.basic_constraints_value
        usage = certificate.asn1.key_usage_value
        extended = certificate.asn1.extended_key_usage_value
        return _Uses(
            None if constraints is None else bool(constraints["ca"].native),
            None if usage is None else frozenset(usage.native),
            None if extended is None else frozenset(purpose.dotted for purpose in extended),
        )
    except Exception as exc:  # noqa: BLE001 - asn1crypto raises many types on hostile input
        raise untrusted(f"{what} cannot be read ({type(exc).__name__})") from None


def check_leaf(leaf: Certificate) -> None:
    """Refuse a certificate that may not sign mail, whoever issued it (AS-12).

    Raises:
        RejectionError: KEY_USAGE, or UNTRUSTED for a malformed certificate.
    """
    fault = _leaf_fault(leaf)
    if fault is not None:
        raise RejectionError(*fault)


@lru_cache(maxsize=MAX_REMEMBERED)
def _leaf_fault(leaf: Certificate) -> tuple[Reason, str] | None:
    """What is wrong with a signer's certificate. It depends on nothing else, so it is found out once."""
    what = "the signer's certificate"
    try:
        uses = _leaf_uses(leaf, what)
    except RejectionError as fault:
        return fault.reason, fault.detail
    if uses.usages is not None and not uses.usages & {"digital_signature", "non_repudiation"}:
        return Reason.KEY_USAGE, f"{what} is not for signatures"
    return None


def check_encryption_leaf(leaf: Certificate, algorithms: AlgorithmPolicy) -> None:
    """Refuse a certificate that nothing may be encrypted to, whoever issued it (AS-12, AS-35, AS-39, AS-77).

    Raises:
        RejectionError: KEY_USAGE; WEAK_ALGORITHM for a key that is too small or of a kind that is not used;
            RESOURCE_LIMIT for one that is too large; UNTRUSTED for a malformed certificate.
    """
    what = "the recipient's certificate"
    uses = _leaf_uses(leaf, what)
    try:
        key = leaf.asn1.public_key
        algorithm, dotted = key.algorithm, key["algorithm"]["algorithm"].dotted
        curve = key["algorithm"]["parameters"].chosen.dotted if algorithm == "ec" else ""
        numbers = key["public_key"].parsed if algorithm == "rsa" else None
        bits, exponent = (key.bit_size, int(numbers["public_exponent"].native)) if numbers is not None else (0, 0)
    except Exception as exc:  # noqa: BLE001 - asn1crypto raises many types on hostile input
        raise untrusted(f"the key of {what} cannot be read ({type(exc).__name__})") from None
    if algorithm == "rsa":
        algorithms.require_rsa_key(bits, exponent)
        wanted = "key_encipherment"
    elif curve in AGREEMENT_CURVES or dotted == X25519:
        wanted = "key_agreement"
    else:
        raise weak(f"the key of {what} is of a kind that mail is not encrypted to")
    if uses.usages is not None and wanted not in uses.usages:
        raise RejectionError(Reason.KEY_USAGE, f"{what} is not for encryption")


def _leaf_uses(leaf: Certificate, what: str) -> _Uses:
    check_form(leaf, what)
    uses = _uses(leaf, what)
    if uses.is_ca:
        raise RejectionError(Reason.KEY_USAGE, f"{what} is that of a certification authority")
    if not uses.for_mail:
        raise RejectionError(Reason.KEY_USAGE, f"{what} is not for mail")
    return uses


def check_intermediate(issuer: Certificate) -> None:
    """Refuse an intermediate CA whose extended key usage leaves mail out; the library checks the rest.

    RFC 5280 gives it no meaning there; every mail program and the S/MIME baseline requirements read it as a limit.

    Raises:
        RejectionError: UNTRUSTED.
    """
    if not _uses(issuer, "an intermediate certificate").for_mail:
        raise untrusted("an intermediate certificate is not for issuing certificates for mail")


def check_anchor_issues(anchor: Certificate) -> None:
    """Refuse an anchor that is no authority as the issuer of somebody else's certificate (AS-65).

    RFC 5280 6.1.1 d takes only name and key from an anchor. But an operator may pin a correspondent's very own
    certificate, and who holds its key must not thereby become an authority that speaks for everybody. A root of
    version 1, which cannot say what it is, counts when it is self-issued: it has no name that binds a sender either.

    Raises:
        RejectionError: UNTRUSTED.
    """
    uses = _uses(anchor, "the trust anchor")
    may_sign = uses.usages is None or "key_cert_sign" in uses.usages
    is_authority = uses.is_ca
    if is_authority is None:
        is_old_root = not _has_extensions(anchor) and anchor.subject_key == anchor.issuer_key
        is_authority = uses.usages is not None or is_old_root
    if not (is_authority and may_sign):
        raise untrusted("the trust anchor that issued the certificate is not a certification authority")


def refused_as_anchor(certificate: Certificate, at: datetime, policy: AlgorithmPolicy = DEFAULT_POLICY) -> str | None:
    """Why the certificate may not be an anchor of a bundle, or None (TB-15).

    An anchor that is not valid yet stays: the path validation keeps it out until its day. A certificate of version 1
    cannot say that it is an authority, and is left out. The key usage is not asked: RFC 5280 section 6.1 takes name and
    key of an anchor and nothing else, and published bundles do hold authorities without keyCertSign.
    """
    if certificate.not_after < at:
        return f"it expired on {certificate.not_after:%Y-%m-%d}"
    try:
        if not certificate.is_authority:
            return "it is not that of a certification authority (basicConstraints)"
    except Exception as exc:  # noqa: BLE001 - asn1crypto raises many types on hostile input
        return f"its extensions cannot be read ({type(exc).__name__})"
    return _weak_key(certificate, policy)


def _weak_key(certificate: Certificate, policy: AlgorithmPolicy) -> str | None:
    try:
        check_rsa_public_key(certificate.der, policy)
        key = load_der_public_key(certificate.public_key_der)
    except RejectionError as exc:
        return exc.detail
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return "its key cannot be read"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return None if key.curve.name in _ANCHOR_CURVES else f"its curve {key.curve.name} is not allowed"
    return None if isinstance(key, rsa.RSAPublicKey | ed25519.Ed25519PublicKey) else "its kind of key is not allowed"


def _has_extensions(certificate: Certificate) -> bool:
    try:
        return bool(certificate.extension_ids())
    except CertificateError:
        return True


def check_form(certificate: Certificate, what: str) -> None:
    """Refuse what RFC 5280 forbids and the library lets pass.

    Doubled extensions, serial numbers below one, and changes outside the signed body.

    Raises:
        RejectionError: UNTRUSTED.
    """
    try:
        extensions = certificate.extension_ids()
        serial = certificate.serial
    except CertificateError as exc:
        raise untrusted(f"{what}: {exc}") from None
    names = [name for name, _ in extensions]
    if len(names) != len(set(names)):
        raise untrusted(f"{what} has the same extension twice")
    if serial < 1:
        raise untrusted(f"{what} has a serial number below one")
    _check_outside(certificate, what)
    check_limits(certificate, what)


def check_limits(certificate: Certificate, what: str) -> None:
    """Refuse a certificate whose limits cannot be kept, be it an anchor: too many names, or one that is unknown.

    RFC 5280 takes no limits from an anchor, but who certified it stated them, and here they count (RFC 5937).

    Raises:
        RejectionError: UNTRUSTED.
    """
    _check_name_count(certificate, what)
    try:
        extensions = certificate.extension_ids()
    except CertificateError as exc:
        raise untrusted(f"{what}: {exc}") from None
    unknown = [name for name, critical in extensions if critical and name not in _KNOWN_CRITICAL]
    if unknown:
        raise untrusted(f"{what} has a critical extension that is not understood ({unknown[0]})")


def _check_outside(certificate: Certificate, what: str) -> None:
    """Refuse a certificate that was altered around its signed body.

    Else anybody could make many certificates with different fingerprints out of a genuine one, and the evidence
    would name one that its authority never issued (RFC 5280 4.1.1.2).
    """
    try:
        body = certificate.asn1["tbs_certificate"]
        algorithm = body["signature"].dump()
        signature = certificate.asn1["signature_value"].dump()
        genuine = sequence(body.dump(), algorithm, signature)
    except Exception as exc:  # noqa: BLE001 - asn1crypto raises many types on hostile input
        raise untrusted(f"{what} cannot be read ({type(exc).__name__})") from None
    if genuine != certificate.der:
        raise untrusted(f"{what} was altered outside its signed part")


def _check_name_count(certificate: Certificate, what: str) -> None:
    """Every name is compared with every constraint, so both numbers are bounded (x509-limbo's nc-dos).

    Raises:
        RejectionError: UNTRUSTED.
    """
    try:
        names = len(certificate.asn1.subject_alt_name_value or ())
        constraints = certificate.asn1.name_constraints_value
        subtrees = 0
        if constraints is not None:
            subtrees = len(constraints["permitted_subtrees"] or ()) + len(constraints["excluded_subtrees"] or ())
    except Exception as exc:  # noqa: BLE001 - what cannot be counted is too much
        raise untrusted(f"the names of {what} cannot be read ({type(exc).__name__})") from None
    if names > MAX_NAMES or subtrees > MAX_NAME_CONSTRAINTS:
        raise untrusted(f"{what} has more names or name constraints than are compared")


def untrusted(detail: str) -> RejectionError:
    """The refusal of a certificate or path that proves nothing."""
    return RejectionError(Reason.UNTRUSTED, detail)
