"""RFC 5280 validation of one fixed path, and the rules of Direct for the certificates in it.

The path is given (``path_building``); pyhanko-certvalidator runs section 6.1 on it without building anything,
because its builder is factorial on an attacker's certificates. Stricter than RFC 5280: an anchor outside its own
dates is refused, no clock tolerance is granted, and doubled extensions and serial numbers below one are refused.

Failure modes: :class:`RejectionError` with UNTRUSTED, EXPIRED, KEY_USAGE or WEAK_ALGORITHM and a precise detail;
whatever the library raises on a hostile certificate is UNTRUSTED.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timedelta
from typing import Any

from pyhanko_certvalidator import ValidationContext
from pyhanko_certvalidator.authority import CertTrustAnchor, TrustQualifiers
from pyhanko_certvalidator.errors import (
    DisallowedAlgorithmError,
    ExpiredError,
    NotYetValidError,
    PathValidationError,
    ValidationError,
)
from pyhanko_certvalidator.name_trees import process_general_subtrees
from pyhanko_certvalidator.path import ValidationPath
from pyhanko_certvalidator.policy_decl import (
    NO_REVOCATION,
    AlgorithmUsageConstraint,
    AlgorithmUsagePolicy,
    CertRevTrustPolicy,
    PKIXValidationParams,
    RevocationCheckingPolicy,
)
from pyhanko_certvalidator.registry import SimpleTrustManager
from pyhanko_certvalidator.validate import async_validate_path

from gateway.core.errors import RejectionError
from gateway.core.verdict import Reason
from gateway.sta.certificates import Certificate, CertificateError
from gateway.sta.path_building import Path

# The library logs subject names when a path fails. Names are PHI here (promise 6), and the verdict says it all.
_library_log = logging.getLogger("pyhanko_certvalidator")
_library_log.addHandler(logging.NullHandler())
_library_log.propagate = False

MAX_NAMES = 128
MAX_NAME_CONSTRAINTS = 512
PKIX_PARAMETERS = PKIXValidationParams(max_policy_graph_nodes=1_024)
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


class ChainAlgorithms(AlgorithmUsagePolicy):
    """The signatures allowed on certificates and revocation data (AS-31..35, AS-38): what is not named is refused."""

    _HASHES = frozenset({"sha256", "sha384", "sha512"})
    _RSA_BITS = range(2048, 8193)

    def digest_algorithm_allowed(self, algo: Any, moment: datetime | None) -> AlgorithmUsageConstraint:  # noqa: ARG002
        """Whether a digest may be used."""
        return AlgorithmUsageConstraint(algo["algorithm"].native in self._HASHES)

    def signature_algorithm_allowed(
        self,
        algo: Any,
        moment: datetime | None,  # noqa: ARG002 - the floor does not depend on the time
        public_key: Any | None,
    ) -> AlgorithmUsageConstraint:
        """Whether a signature algorithm may be used with this key."""
        try:
            name = algo.signature_algo
        except ValueError:
            name = ""
        if name in {"rsassa_pkcs1v15", "rsassa_pss"}:
            if public_key is not None and public_key.bit_size not in self._RSA_BITS:
                return _refused(f"an RSA key of {public_key.bit_size} bits")
        elif name == "ecdsa":
            if public_key is not None and public_key.curve[1] not in {"secp256r1", "secp384r1", "secp521r1"}:
                return _refused("a curve that is not allowed")
        elif name != "ed25519":
            return _refused("a signature algorithm that is not allowed")
        if name == "ed25519" or algo.hash_algo in self._HASHES:
            return AlgorithmUsageConstraint(allowed=True)
        return _refused(f"the digest {algo.hash_algo}")


def _refused(cause: str) -> AlgorithmUsageConstraint:
    return AlgorithmUsageConstraint(allowed=False, failure_reason=cause)


DIRECT_ALGORITHMS = ChainAlgorithms()


def check_leaf(leaf: Certificate) -> None:
    """Refuse a certificate that may not sign mail, whoever issued it (AS-12).

    Raises:
        RejectionError: KEY_USAGE, or UNTRUSTED for a malformed certificate.
    """
    _check_form(leaf, "the signer's certificate")
    try:
        constraints = leaf.asn1.basic_constraints_value
        is_ca = bool(constraints is not None and constraints["ca"].native)
        usage = leaf.asn1.key_usage_value
        usages = None if usage is None else set(usage.native)
        extended = leaf.asn1.extended_key_usage_value
        purposes = None if extended is None else {purpose.dotted for purpose in extended}
    except Exception as exc:  # noqa: BLE001 - asn1crypto raises many types on hostile input
        raise _untrusted(f"the signer's certificate cannot be read ({type(exc).__name__})") from None
    if is_ca:
        raise RejectionError(Reason.KEY_USAGE, "the signer's certificate is that of a certification authority")
    if usages is not None and not usages & {"digital_signature", "non_repudiation"}:
        raise RejectionError(Reason.KEY_USAGE, "the signer's certificate is not for signatures")
    if purposes is not None and not purposes & {_EMAIL_PROTECTION, _ANY_EXTENDED_USAGE}:
        raise RejectionError(Reason.KEY_USAGE, "the signer's certificate is not for mail")


def _check_form(certificate: Certificate, what: str) -> None:
    """Refuse what RFC 5280 forbids and the library lets pass: doubled extensions, serial numbers below one."""
    try:
        extensions = certificate.extension_ids()
        serial = certificate.serial
    except CertificateError as exc:
        raise _untrusted(f"{what}: {exc}") from None
    names = [name for name, _ in extensions]
    if len(names) != len(set(names)):
        raise _untrusted(f"{what} has the same extension twice")
    if serial < 1:
        raise _untrusted(f"{what} has a serial number below one")
    if _too_many_names(certificate):
        raise _untrusted(f"{what} has more names or name constraints than are compared")
    unknown = [name for name, critical in extensions if critical and name not in _KNOWN_CRITICAL]
    if unknown:
        raise _untrusted(f"{what} has a critical extension that is not understood ({unknown[0]})")


def _too_many_names(certificate: Certificate) -> bool:
    """Every name is compared with every constraint, so both numbers are bounded (x509-limbo's nc-dos)."""
    try:
        names = certificate.asn1.subject_alt_name_value or ()
        constraints = certificate.asn1.name_constraints_value
        subtrees = 0
        if constraints is not None:
            subtrees = len(constraints["permitted_subtrees"] or ()) + len(constraints["excluded_subtrees"] or ())
        return len(names) > MAX_NAMES or subtrees > MAX_NAME_CONSTRAINTS
    except Exception:  # noqa: BLE001 - what cannot be counted is too much
        return True


def _issues_for_mail(issuer: Certificate) -> bool:
    """Whether the extended key usage of an intermediate CA, if it has one, covers mail.

    RFC 5280 gives it no meaning there; every mail program and the S/MIME baseline requirements read it as a limit.
    """
    try:
        extended = issuer.asn1.extended_key_usage_value
        return extended is None or bool({p.dotted for p in extended} & {_EMAIL_PROTECTION, _ANY_EXTENDED_USAGE})
    except Exception:  # noqa: BLE001 - asn1crypto raises many types on hostile input
        return False


def _untrusted(detail: str) -> RejectionError:
    return RejectionError(Reason.UNTRUSTED, detail)


def validate_path(
    path: Path,
    at: datetime,
    algorithms: AlgorithmUsagePolicy = DIRECT_ALGORITHMS,
    parameters: PKIXValidationParams = PKIX_PARAMETERS,
) -> None:
    """Validate the path (leaf first, anchor last) as of the moment, without revocation.

    Must run in a thread without an event loop.

    Raises:
        RejectionError: UNTRUSTED, EXPIRED or WEAK_ALGORITHM.
    """
    *chain, anchor = path
    if not anchor.is_valid_at(at):
        raise RejectionError(Reason.EXPIRED, "the trust anchor is outside its validity dates")
    if _too_many_names(anchor):
        raise _untrusted("the trust anchor has more name constraints than are compared")
    for certificate in chain:
        _check_form(certificate, "a certificate of the path")
    if not all(_issues_for_mail(certificate) for certificate in chain[1:]):
        raise _untrusted("an intermediate certificate is not for issuing certificates for mail")
    try:
        asyncio.run(async_validate_path(context(path, at, algorithms), fixed_path(path), parameters))
    except Exception as exc:  # noqa: BLE001 - the library raises many types on hostile certificates
        raise _rejection(exc) from None


def fixed_path(path: Path) -> ValidationPath:
    """The path as the library wants it: anchor first."""
    *chain, anchor = path
    leaf = chain[0].asn1 if chain else None
    return ValidationPath(_trust_anchor(anchor), [c.asn1 for c in reversed(chain[1:])], leaf)


def _trust_anchor(anchor: Certificate) -> CertTrustAnchor:
    """The anchor with the limits that its own certificate states: names and depth (RFC 5937).

    Its policies are not taken over: an anchor that merely asserts some would then demand them of every leaf.

    Raises:
        Exception: whatever the library raises for constraints that cannot be read; the path is then invalid.
    """
    constraints = anchor.asn1.name_constraints_value
    parameters = None
    if constraints is not None:
        permitted, excluded = constraints["permitted_subtrees"], constraints["excluded_subtrees"]
        parameters = PKIXValidationParams(
            initial_permitted_subtrees=process_general_subtrees(permitted) if permitted else None,
            initial_excluded_subtrees=process_general_subtrees(excluded) if excluded else None,
        )
    return CertTrustAnchor(anchor.asn1, TrustQualifiers(parameters, max_path_length=anchor.asn1.max_path_length))


def context(
    path: Path,
    at: datetime,
    algorithms: AlgorithmUsagePolicy,
    *,
    crls: list[Any] | None = None,
    ocsps: list[Any] | None = None,
    others: list[Certificate] | None = None,
    revocation: RevocationCheckingPolicy = NO_REVOCATION,
) -> ValidationContext:
    """A context that fetches nothing, knows only these certificates, and trusts only the path's anchor."""
    trust = SimpleTrustManager.build(trust_roots=[path[-1].asn1])
    return ValidationContext(
        trust_manager=trust,
        other_certs=[c.asn1 for c in (*path[:-1], *(others or ()))],
        moment=at,
        crls=crls or [],
        ocsps=ocsps or [],
        revinfo_policy=CertRevTrustPolicy(revocation),
        time_tolerance=timedelta(0),
        algorithm_usage_policy=algorithms,
        allow_fetching=False,
    )


def _rejection(exc: Exception) -> RejectionError:
    """The library's verdict in our words. Its texts hold positions and dates, no names of people."""
    if isinstance(exc, ExpiredError | NotYetValidError):
        when = "has expired" if isinstance(exc, ExpiredError) else "is not valid yet"
        whose = "the signer's certificate" if exc.is_ee_cert else "an intermediate certificate"
        return RejectionError(Reason.EXPIRED, f"{whose} {when}")
    if isinstance(exc, DisallowedAlgorithmError):
        return RejectionError(Reason.WEAK_ALGORITHM, _sentence(exc))
    if isinstance(exc, PathValidationError | ValidationError):
        return _untrusted(_sentence(exc))
    return _untrusted(f"the path cannot be validated ({type(exc).__name__})")


def _sentence(exc: ValidationError) -> str:
    return str(exc.failure_msg).removeprefix("The path could not be validated because ").strip().rstrip(".")[:300]
