"""What a newly fetched bundle changes, and whether it may be taken over. Pure: values in, decision out.

The rules

* The new content counts as a whole: an anchor that is gone is no longer trusted at once, however many are gone
  (TB-9). More than ``alarm_percent`` of those still in date gone is taken over *and* raises an alarm (TB-14): to keep
  trusting what the publisher withdrew is the worse mistake, and the alarm brings a person to look.
* An older content that comes back would bring withdrawn anchors back to life. Of a signed bundle it is refused: the
  publisher, who signs anew whenever he publishes, did not send it, somebody replays it. Older is what was signed
  before the version in force, is valid from an earlier moment, or equals an earlier version byte by byte; and what
  keeps quiet about its time where the version in force tells it, because that may be of any time. An operator who knows
  better says so by hand (``accept_older``).
* Of an unsigned bundle nothing but the web server vouches, which may well be set back by its owner: the older content
  is taken over, and raises an alarm.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from gateway.core.errors import BundleError
from gateway.core.trust import BundleSetting, BundleVersion
from gateway.sta.certificates import Certificate
from gateway.sta.trust_anchors.bundle_file import BundleContent, RefusedAnchor


@dataclass(frozen=True, slots=True)
class Member:
    """One anchor, for people."""

    subject: str
    sha256: str
    not_after: datetime


@dataclass(frozen=True, slots=True)
class BundleDiff:
    """What taking over a content would change, against the version in force (0: there is none)."""

    name: str
    version: int
    added: tuple[Member, ...]
    removed: tuple[Member, ...]
    kept: tuple[Member, ...]
    refused: tuple[RefusedAnchor, ...]
    signed: bool = False
    signature_checked: bool = False

    @property
    def changes(self) -> bool:
        """Whether any anchor comes or goes."""
        return bool(self.added or self.removed)


@dataclass(frozen=True, slots=True)
class Basis:
    """What was known of a bundle when its new content was fetched."""

    setting: BundleSetting
    newest: BundleVersion | None = None
    in_force: BundleContent | None = None
    """The newest version's own file as the configured signer vouches for it; None when he does not."""
    digests: tuple[str, ...] = ()
    """SHA-256 of the files of all versions."""


def member(certificate: Certificate) -> Member:
    """Describe an anchor."""
    return Member(certificate.as_signer("").subject, certificate.sha256, certificate.not_after)


def compare(basis: Basis, content: BundleContent) -> BundleDiff:
    """Return what the content would change."""
    at_hand = {one.der: one for one in content.anchors}
    old = [at_hand.get(der) or Certificate(der) for der in basis.newest.anchors] if basis.newest else []
    before, after = set(old), set(content.anchors)
    return BundleDiff(
        name=basis.setting.name,
        version=basis.newest.version if basis.newest else 0,
        added=tuple(member(one) for one in content.anchors if one not in before),
        removed=tuple(member(one) for one in old if one not in after),
        kept=tuple(member(one) for one in content.anchors if one in before),
        refused=content.refused,
        signed=content.signed,
        signature_checked=content.signature_checked,
    )


def check_age(basis: Basis, content: BundleContent, sha256: str, *, accept_older: bool) -> str:
    """Return the alarm that an older content raises, or nothing.

    Raises:
        BundleError: the content is signed, older than what is in force, and nobody said to take it all the same.
    """
    age = _age(basis, content, sha256)
    if not age or accept_older:
        return ""
    if content.signature_checked:
        raise BundleError(
            "replayed",
            f"the bundle {age}: it may be an old one that is replayed, and was not taken over; when the publisher "
            f"confirms it: direct-gateway bundle refresh {basis.setting.name} --accept-older",
            alarming=True,
        )
    return f"the bundle {age}"


def _age(basis: Basis, content: BundleContent, sha256: str) -> str:
    if basis.newest is None or sha256 == basis.newest.sha256:
        return ""
    if sha256 in basis.digests:
        return f"equals version {len(basis.digests) - basis.digests[::-1].index(sha256)}, which was replaced"
    known = basis.in_force
    if known is None:
        return ""
    number = basis.newest.version
    if known.signing_time and content.signing_time is None:
        return f"does not say when it was signed, as version {number} does, which is in force"
    if known.signing_time and content.signing_time and content.signing_time < known.signing_time:
        return f"was signed before version {number}, which is in force"
    before, after = known.metadata.valid_from, content.metadata.valid_from
    if before and after and after < before:
        return f"is valid from an earlier moment than version {number}, which is in force"
    if before and after is None and content.signature_checked and content.signing_time is None:
        return f"does not say from when it is valid, as version {number} does, which is in force"
    return ""


def shrinkage(diff: BundleDiff, at: datetime, alarm_percent: int) -> str:
    """Return the alarm that the loss of anchors raises, or nothing. Expired ones are no loss."""
    lost = [one for one in diff.removed if one.not_after >= at]
    kept = [one for one in diff.kept if one.not_after >= at]
    total = len(lost) + len(kept)
    if len(lost) * 100 <= alarm_percent * total:
        return ""
    return f"{len(lost)} of {total} anchors of version {diff.version} {'is' if len(lost) == 1 else 'are'} gone"
