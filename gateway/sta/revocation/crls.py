"""Certificate revocation lists: from the operator's folder, from a message, from a distribution point.

A list of any size is held as its bytes and looked up in the parser's own code; nothing walks its entries in Python,
but for the rare list that may hold an entry with a critical extension. Nothing in a list counts before its signature
has been checked against the certificate's issuer. Reading a list raises nothing but ``InputError``, reading a folder
nothing but ``ConfigurationError``.

A list is shared by all threads that judge. asn1crypto parses while it is read, and a second thread would find a
structure half parsed; so a list keeps none of its structures: what is asked of it later is read out when it is made,
and the small part that is needed as a structure is parsed anew by whoever asks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from asn1crypto import algos as asn1_algos
from asn1crypto import crl as asn1_crl
from cryptography import x509
from pyhanko_certvalidator.policy_decl import AlgorithmUsagePolicy

from gateway.core.errors import ConfigurationError, InputError
from gateway.sta.certificates import Certificate
from gateway.sta.fetching.authority_access import freshest_points
from gateway.sta.revocation.data_signatures import is_signed
from gateway.sta.revocation.findings import Proof
from gateway.sta.trust_anchors.certificate_files import pem_blocks

OPERATOR = "operator"
MESSAGE = "message"
CRL_SUFFIXES = frozenset({".crl", ".pem", ".der"})
MAX_CRL_BYTES = 10 * 1024 * 1024
MAX_MESSAGE_CRLS = 8
MAX_MESSAGE_CRL_BYTES = 1024 * 1024
MAX_KEYS_REMEMBERED = 16
_PEM_LABELS = frozenset({b"X509 CRL", b"CRL"})
_SCOPE = "2.5.29.28"
_DELTA = "2.5.29.27"
_UNDERSTOOD = frozenset({_SCOPE, _DELTA, "2.5.29.20", "2.5.29.35", "2.5.29.46"})
_UNDERSTOOD_IN_ENTRIES = frozenset({"2.5.29.21", "2.5.29.23", "2.5.29.24"})
CERTIFICATE_ISSUER = "2.5.29.29"
"""In an entry of an indirect list: whose certificate this one and those behind it are."""
_CRITICAL = b"\x01\x01\xff\x04"
"""How a critical extension reads in DER: the flag, and the tag of the value behind it."""


class RevocationList:
    """A CRL from anywhere. Nothing in it counts before its signature is checked against its issuer."""

    def __init__(self, der: bytes, origin: str = OPERATOR) -> None:
        """Parse the outer structure; ``origin`` is ``operator``, ``message`` or the URL that it came from.

        Raises:
            InputError: not a CRL, or larger than MAX_CRL_BYTES.
        """
        if len(der) > MAX_CRL_BYTES:
            raise InputError("the CRL is larger than the limit")
        self.der = der
        self.origin = origin
        self.sha256 = hashlib.sha256(der).hexdigest()
        self._signed_by: dict[bytes, bool] = {}
        try:
            self.parsed = x509.load_der_x509_crl(der)
            self.this_update = self.parsed.last_update_utc
            self.next_update = self.parsed.next_update_utc
            whole = asn1_crl.CertificateList.load(der, strict=True)
            body, algorithm = whole["tbs_cert_list"], whole["signature_algorithm"]
            self._algorithm_der = bytes(algorithm.dump())
            self._is_consistent = body["signature"].dump() == self._algorithm_der
            self.issuer_key = str(whole.issuer.hashable)
            extensions = [(e["extn_id"].dotted, bool(e["critical"].native)) for e in body["crl_extensions"]]
            self.extensions = dict(extensions)
            self.number = _number(whole.crl_number_value)
            self.base_number = _number(whole.delta_crl_indicator_value)
            self.freshest_urls = tuple(freshest_points(whole))
            scope = whole.issuing_distribution_point_value
            self.scope_der = b"" if scope is None else bytes(scope.dump())
            self.is_indirect = scope is not None and bool(scope["indirect_crl"].native)
        except Exception as exc:  # noqa: BLE001 - parsers raise many types on hostile input
            raise InputError(f"not a readable CRL ({type(exc).__name__})") from None
        if len(self.extensions) != len(extensions):
            raise InputError("the CRL has the same extension twice")

    @property
    def proof(self) -> Proof:
        """The list as what a finding rests on."""
        return Proof("crl", self.origin, self.der, self.sha256, self.this_update, self.next_update)

    @property
    def is_delta(self) -> bool:
        """Whether it lists only what changed since a base list."""
        return _DELTA in self.extensions

    @property
    def is_scoped(self) -> bool:
        """Whether it has an issuing distribution point."""
        return bool(self.scope_der)

    def covers(self, certificate: Certificate) -> bool:
        """Whether it lists everything that its issuer revoked as far as this certificate goes (RFC 5280 6.3.3 b 2).

        False as well when something critical in it is not understood, and for what the library has to judge:
        entries of other issuers, some reasons only, names relative to the issuer's.
        """
        if any(critical and name not in _UNDERSTOOD for name, critical in self.extensions.items()):
            return False
        if not self.is_scoped:
            return True
        try:
            return _in_scope(asn1_crl.IssuingDistributionPoint.load(self.scope_der, strict=True), certificate)
        except Exception:  # noqa: BLE001 - asn1crypto raises many types on hostile input
            return False

    def is_in_force(self, at: datetime) -> bool:
        """Whether the moment lies between thisUpdate and nextUpdate; a CRL without nextUpdate never is."""
        return self.next_update is not None and self.this_update <= at <= self.next_update

    def is_signed_by(self, public_key: bytes) -> bool:
        """Whether that key (SubjectPublicKeyInfo, DER) made the signature."""
        known = self._signed_by.get(public_key)
        if known is None:
            checked = self._verified(public_key)
            # What could not be checked is not remembered: it may have failed for want of memory, and a list that
            # reveals a revocation must not be silenced by that for as long as it lives.
            if checked is not None and len(self._signed_by) < MAX_KEYS_REMEMBERED:
                self._signed_by[public_key] = checked
            known = checked is True
        return known

    def _verified(self, public_key: bytes) -> bool | None:
        if not self._is_consistent:
            return False
        body, signature = self.parsed.tbs_certlist_bytes, self.parsed.signature
        return is_signed(public_key, self._algorithm(), signature, body)

    def _algorithm(self) -> Any:
        return asn1_algos.SignedDigestAlgorithm.load(self._algorithm_der)

    def may_clear(self, issuer: Certificate, algorithms: AlgorithmUsagePolicy) -> bool:
        """Whether its silence counts: the issuer may sign lists, did so by an allowed algorithm, and it is understood.

        An entry that is not understood makes the list useless for all others (RFC 5280 5.3).
        """
        try:
            usage = issuer.asn1.key_usage_value
            if usage is not None and "crl_sign" not in usage.native:
                return False
            key = issuer.asn1.public_key
            allowed = bool(algorithms.signature_algorithm_allowed(self._algorithm(), None, key))
        except Exception:  # noqa: BLE001 - what cannot be read clears nobody
            return False
        return allowed and self.unknown_entries == frozenset()

    @cached_property
    def unknown_entries(self) -> frozenset[str] | None:
        """The critical extensions of entries that are not understood; None when an entry cannot be read."""
        if _CRITICAL not in self.der:
            return frozenset()
        try:
            critical = {e.oid.dotted_string for entry in self.parsed for e in entry.extensions if e.critical}
        except Exception:  # noqa: BLE001 - parsers raise many types on hostile input
            return None
        return frozenset(critical) - _UNDERSTOOD_IN_ENTRIES

    def entry(self, serial: int) -> tuple[datetime, str] | None:
        """Revocation date and reason of a serial number, or None."""
        found = self.parsed.get_revoked_certificate_by_serial_number(serial)
        if found is None:
            return None
        try:
            reason = found.extensions.get_extension_for_class(x509.CRLReason).value.reason.value
        except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
            reason = "unspecified"
        return found.revocation_date_utc, reason


def _number(extension: Any) -> int | None:
    return None if extension is None else int(extension.native)


def _in_scope(scope: Any, certificate: Certificate) -> bool:
    if scope["indirect_crl"].native or scope["only_some_reasons"].native is not None:
        return False
    other_kind = "only_contains_user_certs" if certificate.is_authority else _CA_ONLY
    if scope["only_contains_attribute_certs"].native or scope[other_kind].native:
        return False
    name = scope["distribution_point"]
    if not name:
        return True
    if name.name != "full_name":
        return False
    wanted = list(name.chosen)
    for point in certificate.asn1.crl_distribution_points_value or ():
        own = point["distribution_point"]
        if own and own.name == "full_name" and not point["crl_issuer"] and any(n in wanted for n in own.chosen):
            return True
    return False


_CA_ONLY = "only_contains_ca_certs"


def load_crls(directory: Path) -> tuple[RevocationList, ...]:
    """Read every CRL file of a folder (PEM with one or many, or DER).

    Raises:
        ConfigurationError: the folder or a CRL file cannot be read; the text names it.
    """
    try:
        entries = sorted(directory.iterdir())
    except OSError as exc:
        raise ConfigurationError(f"cannot read the CRL folder {directory}: {exc.strerror}") from exc
    found: list[RevocationList] = []
    for path in entries:
        if path.suffix.lower() not in CRL_SUFFIXES or path.name.startswith(".") or not path.is_file():
            continue
        try:
            found.extend(RevocationList(der) for der in crl_ders(path.read_bytes()))
        except OSError as exc:
            raise ConfigurationError(f"cannot read {path}: {exc.strerror}") from exc
        except (InputError, ValueError) as exc:
            raise ConfigurationError(f"{path} holds no readable CRL: {exc}") from None
    return tuple(found)


def unread_files(directory: Path) -> tuple[str, ...]:
    """A sentence for each revocation list that lies in the folder and :func:`load_crls` passes over.

    That is for the suffix of its name, or because it lies in a sub-folder. Names that begin with a dot are left out.
    Raises nothing; a folder that cannot be listed is for ``load_crls``.
    """
    told: list[str] = []
    for path in _visible(directory):
        if path.is_dir():
            if any(map(_is_list, _visible(path))):
                told.append(f"{path} is a folder: the revocation lists in it are not read; put them beside it")
        elif path.suffix.lower() not in CRL_SUFFIXES and _is_list(path):
            wanted = ", ".join(sorted(CRL_SUFFIXES))
            told.append(f"{path} holds a revocation list and is not read: its name must end with one of {wanted}")
    return tuple(told)


def _visible(directory: Path) -> list[Path]:
    try:
        return [path for path in sorted(directory.iterdir()) if not path.name.startswith(".")]
    except OSError:
        return []


def _is_list(path: Path) -> bool:
    try:
        if not path.is_file() or path.stat().st_size > MAX_CRL_BYTES:
            return False
        return any(map(RevocationList, crl_ders(path.read_bytes())))
    except (OSError, ValueError, InputError):
        return False


def crl_ders(data: bytes) -> list[bytes]:
    """Find CRLs in PEM or DER: in a file, or in the answer to a distribution point.

    Raises:
        ValueError: damaged PEM.
    """
    blocks = pem_blocks(data)
    # A folder may hold the issuer's certificate beside its CRL; other PEM blocks are simply not CRLs.
    return [data] if blocks is None else [der for label, der in blocks if label in _PEM_LABELS]


def message_crls(ders: Sequence[bytes]) -> tuple[RevocationList, ...]:
    """The CRLs that a message carries, within bounds; unreadable ones are left out."""
    found: list[RevocationList] = []
    room = MAX_MESSAGE_CRL_BYTES
    for der in ders[:MAX_MESSAGE_CRLS]:
        room -= len(der)
        if room < 0:
            break
        try:
            found.append(RevocationList(bytes(der), MESSAGE))
        except InputError:
            continue
    return tuple(found)
