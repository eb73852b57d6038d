"""Name constraints on the names that bind a sender, where the library's own comparison leaves a way around them.

Three ways. Mailboxes in constraints are compared letter by letter, while Direct addresses are compared without regard
to case (AS-4), so that ``BOSS@x`` would pass a list that excludes ``boss@x`` and bind boss all the same. Constraints on
``rfc822Name`` do not touch an address that comes as SmtpUTF8Mailbox, which binds just as well; RFC 9598 section 6 says
that they must. And an empty ``dNSName``, by which an authority is kept from naming any domain, matches none there.

This is an addition: the library's own check of all kinds of names runs as well. Only names that can bind a sender are
looked at, so nothing is refused here that could not be misused.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

from gateway.core.errors import InputError
from gateway.sta.certificates import Certificate, CertificateError, SubjectName
from gateway.sta.domain_names import parse_any_address
from gateway.sta.paths.certificate_rules import untrusted
from gateway.sta.paths.path_building import Path

_CONSTRAINED_BY = {"rfc822": "rfc822_name", "utf8": "rfc822_name", "dns": "dns_name"}
"""By the kind of a name: the kind of constraint that it is subject to."""


def check_binding_names(path: Path) -> None:
    """Check the addresses and domains of the leaf against the constraints of everything above it.

    Raises:
        RejectionError: UNTRUSTED.
    """
    leaf, *above = path
    constraints = [found for issuer in above for found in [_constraints(issuer)] if found is not None]
    if not constraints:
        return
    try:
        names = [(_CONSTRAINED_BY[n.kind], _comparable(n)) for n in leaf.names]
    except CertificateError as exc:
        raise untrusted(f"the end certificate: {exc}") from None
    for permitted, excluded in constraints:
        for kind, name in names:
            if permitted[kind] and not _is_within(kind, name, permitted[kind]):
                raise untrusted("a name of the certificate is not among those that its authority may give")
            if _is_within(kind, name, excluded[kind]):
                raise untrusted("a name of the certificate is one that its authority may not give")


def _comparable(name: SubjectName) -> str:
    """The name as it binds: a domain in U-labels must not pass a list that has it in A-labels."""
    if name.kind == "utf8":
        with contextlib.suppress(InputError):
            return str(parse_any_address(name.value))
    return name.value.lower()


Bases = dict[str, list[str]]


def _constraints(issuer: Certificate) -> tuple[Bases, Bases] | None:
    try:
        value = issuer.asn1.name_constraints_value
        if value is None:
            return None
        return _bases(value["permitted_subtrees"]), _bases(value["excluded_subtrees"])
    except Exception as exc:  # noqa: BLE001 - asn1crypto raises many types on hostile input
        raise untrusted(f"the name constraints of an authority cannot be read ({type(exc).__name__})") from None


def _bases(subtrees: Any) -> Bases:
    found: Bases = {kind: [] for kind in _CONSTRAINED_BY.values()}
    for subtree in subtrees or ():
        base = subtree["base"]
        if base.name in found:
            # The raw contents are read because asn1crypto decodes punycode, and the names to compare are not decoded.
            found[base.name].append(base.chosen.contents.decode("ascii", "replace").lower())
    return found


def _is_within(kind: str, name: str, bases: Iterable[str]) -> bool:
    """RFC 5280 4.2.1.10: for addresses a mailbox, a host, or a domain behind a dot; for domains all that ends in it."""
    if kind == "dns_name":
        return any(not base or name == base or name.endswith(f".{base.removeprefix('.')}") for base in bases)
    host = name.rpartition("@")[2]
    return any(
        name == base if "@" in base else (host.endswith(base) if base[:1] == "." else host == base) for base in bases
    )
