"""Trust anchors: who each local domain and address trusts, for receiving and for sending (AS-56, AS-65, AS-72).

An anchor counts for everyone here, or for one domain or address alone, and for one direction or both. It may be a
root, an intermediate CA or, when an operator places it on purpose, the very certificate of a correspondent. Trust
bundles come on top of what the operator placed (TB-11, TB-12).

``anchor_folder`` reads the folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from gateway.core.trust import BOTH_DIRECTIONS, AnchorBundle, Direction
from gateway.core.verdict import AnchorSet, anchor_set_name
from gateway.sta.certificates import Certificate, CertificateError
from gateway.sta.paths.path_building import BySubject, by_subject

FOLDER = "folder"
"""How the evidence names an anchor that an operator placed in the folder."""
MAX_CACHED_SETS = 1_024
"""Sets of anchors that are kept put together. Addresses without anchors of their own share that of their domain."""


@dataclass(frozen=True, slots=True)
class TrustAnchor:
    """A certificate that is trusted, and where it came from: the folder, bundles, or several of them (TB-17)."""

    certificate: Certificate
    sources: tuple[str, ...]


class Anchors(tuple[TrustAnchor, ...]):  # noqa: SLOT001 - what is derived once needs a place to be kept
    """All anchors of one owner, each once, with what is derived from them; derived once, not for each message."""

    @cached_property
    def certificates(self) -> tuple[Certificate, ...]:
        """The certificates alone, in order."""
        return tuple(anchor.certificate for anchor in self)

    @cached_property
    def by_subject(self) -> BySubject:
        """The certificates by name."""
        return by_subject(self.certificates)

    def find(self, sha256: str) -> TrustAnchor | None:
        """The anchor whose certificate has the digest."""
        return self._by_digest.get(sha256)

    @cached_property
    def _by_digest(self) -> dict[str, TrustAnchor]:
        return {anchor.certificate.sha256: anchor for anchor in self}

    @cached_property
    def name(self) -> str:
        """Names exactly this set, the sources of each certificate included."""
        return anchor_set_name((anchor.certificate.sha256, anchor.sources) for anchor in self)

    @cached_property
    def as_set(self) -> AnchorSet:
        """The set as the evidence keeps it."""
        return AnchorSet(tuple(a.certificate.der for a in self), tuple(a.sources for a in self))


@dataclass(frozen=True, slots=True)
class Grant:
    """Some certificates that one owner trusts, from one source."""

    certificates: tuple[Certificate, ...]
    owner: str = ""
    """A normalised domain or address; empty: every one."""
    directions: frozenset[Direction] = BOTH_DIRECTIONS
    sources: tuple[str, ...] = (FOLDER,)
    is_bundle: bool = False


class AnchorStore:
    """Who trusts which anchors. Immutable; safe to use from several threads.

    ``common`` and ``own`` (by normalised domain or address) count for both directions; ``grants`` say it themselves.
    ``warnings`` names what was found and does not count; ``files`` tells what each file of the folder held,
    ``stale`` what could not be read again and keeps what it held before.
    """

    def __init__(
        self,
        common: Iterable[Certificate] = (),
        own: Mapping[str, Iterable[Certificate]] | None = None,
        warnings: Iterable[str] = (),
        *,
        grants: Iterable[Grant] = (),
        files: Mapping[Path, tuple[Certificate, ...]] | None = None,
        stale: Iterable[str] = (),
        bundle_warnings: Iterable[str] = (),
    ) -> None:
        listed = [Grant(tuple(common)), *(Grant(tuple(c), owner) for owner, c in (own or {}).items()), *grants]
        self.grants = tuple(grant for grant in listed if grant.certificates)
        self._folder_warnings = tuple(warnings)
        self.warnings = (*self._folder_warnings, *bundle_warnings)
        self.files = dict(files or {})
        self.stale = tuple(stale)
        self._by_owner: dict[str, list[Grant]] = {}
        for grant in self.grants:
            self._by_owner.setdefault(grant.owner, []).append(grant)
        self._interned: dict[tuple[Certificate, tuple[str, ...]], TrustAnchor] = {}
        """Thousands of sets share most of their anchors."""
        self._union = lru_cache(MAX_CACHED_SETS)(self._put_together)

    @classmethod
    def of_sets(cls, sets: Mapping[str, AnchorSet]) -> AnchorStore:
        """The store as it was for these (normalised) addresses, from the evidence: to judge again as of then.

        Raises:
            CertificateError: the evidence is damaged.
        """
        return cls(
            grants=[
                Grant((Certificate(der),), owner, sources=sources)
                for owner, kept in sets.items()
                for der, sources in zip(kept.anchors, kept.sources, strict=True)
            ]
        )

    def with_bundles(self, bundles: Iterable[AnchorBundle]) -> AnchorStore:
        """The same store with these bundles in force, in the place of any that were (TB-9).

        A certificate that cannot be read is left out and reported in ``warnings``: the bundle's others still count.
        """
        grants = [grant for grant in self.grants if not grant.is_bundle]
        known = {c.der: c for grant in self.grants for c in grant.certificates}
        warnings: list[str] = []
        for bundle in bundles:
            certificates: list[Certificate] = []
            for der in bundle.anchors:
                try:
                    if der not in known:
                        known[der] = Certificate(der)
                    certificates.append(known[der])
                except CertificateError as exc:
                    warnings.append(f"{bundle.source} holds an anchor that does not count: {exc}")
            grants += [
                Grant(tuple(certificates), owner, bundle.directions, (bundle.source,), is_bundle=True)
                for owner in bundle.owners or ("",)
            ]
        return AnchorStore(
            warnings=self._folder_warnings,
            grants=grants,
            files=self.files,
            stale=self.stale,
            bundle_warnings=warnings,
        )

    def anchors_for(self, owner: str, direction: Direction = Direction.INBOUND) -> Anchors:
        """Every anchor that the (normalised) local address trusts: the common ones, its domain's and its own."""
        return self._union(self._nearest(owner), frozenset({direction}))

    def anchors_for_notification(self, owner: str) -> Anchors:
        """Those for an incoming delivery or disposition notification: of either direction.

        Where trust goes out only, the answer to what was sent would else be lost (AS-73).
        """
        return self._union(self._nearest(owner), BOTH_DIRECTIONS)

    def all(self) -> Anchors:
        """Every anchor of anybody, for either direction."""
        return self._everything

    @cached_property
    def correspondents(self) -> tuple[Certificate, ...]:
        """The anchors that are no authorities: a correspondent's own certificate, which may sign without coming along.

        An authority's certificate may not sign mail, so it is no candidate for a signer.
        """
        return tuple(c for c in self._everything.certificates if not _is_authority(c))

    @cached_property
    def _everything(self) -> Anchors:
        return self._merged(self.grants, BOTH_DIRECTIONS)

    def _nearest(self, owner: str) -> str:
        """The address or, when it has no anchors of its own, its domain, or nobody in particular."""
        domain = owner.rpartition("@")[2]
        return next((name for name in (owner, domain) if name in self._by_owner), "")

    def _put_together(self, owner: str, directions: frozenset[Direction]) -> Anchors:
        names = dict.fromkeys(("", owner.rpartition("@")[2], owner))
        return self._merged((grant for name in names for grant in self._by_owner.get(name, ())), directions)

    def _merged(self, grants: Iterable[Grant], directions: frozenset[Direction]) -> Anchors:
        """Each certificate once, with every source that grants it for one of the directions."""
        found: dict[Certificate, dict[str, None]] = {}
        for grant in grants:
            if grant.directions & directions:
                for certificate in grant.certificates:
                    found.setdefault(certificate, {}).update(dict.fromkeys(grant.sources))
        listed = [TrustAnchor(certificate, tuple(sources)) for certificate, sources in found.items()]
        return Anchors(self._interned.setdefault((one.certificate, one.sources), one) for one in listed)


def _is_authority(certificate: Certificate) -> bool:
    try:
        return certificate.is_authority
    except Exception:  # noqa: BLE001 - asn1crypto raises many types; what cannot be read is no authority
        return False
