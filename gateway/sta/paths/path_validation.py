"""RFC 5280 validation of one fixed path, and the limits that Direct adds.

The path is given (``path_building``); pyhanko-certvalidator runs section 6.1 on it without building anything,
because its builder is factorial on an attacker's certificates. Stricter than RFC 5280: an anchor outside its own
dates is refused, so is one that issued although it is no authority, and no clock tolerance is granted.

Failure modes: :class:`RejectionError` with UNTRUSTED, EXPIRED or WEAK_ALGORITHM and a precise detail;
whatever the library raises on a hostile certificate is UNTRUSTED.
"""

from __future__ import annotations

import asyncio
import logging
import re
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
from gateway.core.verdict import FORBIDDEN_HERE, Reason
from gateway.sta.algorithm_policy import DEFAULT_POLICY, RSA_BITS_CEILING, RSA_BITS_FLOOR, AlgorithmPolicy
from gateway.sta.certificates import Certificate
from gateway.sta.paths.certificate_rules import (
    check_anchor_issues,
    check_form,
    check_intermediate,
    check_limits,
    untrusted,
)
from gateway.sta.paths.name_limits import check_binding_names
from gateway.sta.paths.path_building import Path

# The library logs subject names when a path fails. Names are PHI here (promise 6), and the verdict says it all.
_library_log = logging.getLogger("pyhanko_certvalidator")
_library_log.addHandler(logging.NullHandler())
_library_log.propagate = False

PKIX_PARAMETERS = PKIXValidationParams(max_policy_graph_nodes=1_024)
_FAMILIES = {
    "rsassa_pkcs1v15": "rsa-pkcs1v15",
    "rsassa_pss": "rsa-pss",
    "ecdsa": "ecdsa",
    "ed25519": "ed25519",
}
"""The rows of the algorithm matrix by the library's names."""
_CURVES = frozenset({"secp256r1", "secp384r1", "secp521r1"})
_A_NAME = re.compile(r"[Tt]he name '.*' of type", re.DOTALL)


class ChainAlgorithms(AlgorithmUsagePolicy):
    """The signatures allowed on certificates and revocation data (AS-31..35, AS-38, AS-41): the matrix in force.

    What the matrix does not name is refused, and so is what the operator refuses on top.
    """

    def __init__(self, policy: AlgorithmPolicy = DEFAULT_POLICY) -> None:
        self._policy = policy

    def digest_algorithm_allowed(self, algo: Any, moment: datetime | None) -> AlgorithmUsageConstraint:  # noqa: ARG002
        """Whether a digest may be used."""
        return self._digest(algo["algorithm"].native)

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
        family = _FAMILIES.get(name)
        if family is None:
            return _refused("a signature algorithm that is not allowed")
        bits: int | None = None
        if public_key is not None:
            # Not the exponent: authorities with the exponent 3 exist, and only signing with such a key takes care.
            bits = int(public_key.bit_size) if family.startswith("rsa") else None
            if bits is not None and bits not in range(RSA_BITS_FLOOR, RSA_BITS_CEILING + 1):
                return _refused(f"an RSA key of {bits} bits")
            if family == "ecdsa" and public_key.curve[1] not in _CURVES:
                return _refused("a curve that is not allowed")
        if family != "ed25519" and not (digest := self._digest(algo.hash_algo)):
            return digest
        # What the settings forbid comes last: of what lies below the floor too, it must not be said that they could
        # allow it.
        if family in self._policy.refused:
            return _refused(f"the signature algorithm {family} is not allowed: {FORBIDDEN_HERE}")
        if bits is not None and bits < self._policy.min_rsa_bits:
            return _refused(f"an RSA key of {bits} bits{self._policy.why_rsa(bits)}")
        return AlgorithmUsageConstraint(allowed=True)

    def _digest(self, name: str) -> AlgorithmUsageConstraint:
        try:
            self._policy.require_digest(name, "the digest")
        except RejectionError as fault:
            return _refused(fault.detail)
        return AlgorithmUsageConstraint(allowed=True)


def _refused(cause: str) -> AlgorithmUsageConstraint:
    return AlgorithmUsageConstraint(allowed=False, failure_reason=cause)


DIRECT_ALGORITHMS = ChainAlgorithms()


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
    # Validity is written in whole seconds, and the last one belongs to it (RFC 5280 4.1.2.5).
    at = at.replace(microsecond=0)
    if not anchor.is_valid_at(at):
        raise RejectionError(Reason.EXPIRED, "the trust anchor is outside its validity dates")
    check_limits(anchor, "the trust anchor")
    for certificate in chain:
        check_form(certificate, "a certificate of the path")
    for certificate in chain[1:]:
        check_intermediate(certificate)
    if chain:
        check_anchor_issues(anchor)
    check_binding_names(path)
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
    # The library fails (TypeError) on an anchor that limits the depth of paths but not that of attribute authorities.
    depth = anchor.asn1.max_path_length
    qualifiers = TrustQualifiers(parameters, max_path_length=depth, max_aa_path_length=depth)
    return CertTrustAnchor(anchor.asn1, qualifiers)


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
    """The library's verdict in our words."""
    if isinstance(exc, ExpiredError | NotYetValidError):
        when = "has expired" if isinstance(exc, ExpiredError) else "is not valid yet"
        whose = "the signer's certificate" if exc.is_ee_cert else "an intermediate certificate"
        return RejectionError(Reason.EXPIRED, f"{whose} {when}")
    if isinstance(exc, DisallowedAlgorithmError):
        return RejectionError(Reason.WEAK_ALGORITHM, _sentence(exc))
    if isinstance(exc, PathValidationError | ValidationError):
        return untrusted(_sentence(exc))
    return untrusted(f"the path cannot be validated ({type(exc).__name__})")


def _sentence(exc: ValidationError) -> str:
    """The library's cause; a name that it quotes is somebody's address, and is left out."""
    text = _A_NAME.sub("a name of type", str(exc.failure_msg))
    return text.removeprefix("The path could not be validated because ").strip().rstrip(".")[:300]
