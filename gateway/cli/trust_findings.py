"""What ``config check`` finds in keys, anchors and revocation lists, read as ``serve`` reads them.

Guarantees: nothing is written. What stops ``serve`` is raised by the readers themselves; everything here is a warning
about what would surprise the operator later: an address that nobody can write to, an anchor that counts for nobody, a
revocation list that is out of date.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from gateway.settings import PracticeSettings, Settings

if TYPE_CHECKING:
    from gateway.ports import KeyRing
    from gateway.sta.agent import SecurityTrustAgent
    from gateway.sta.revocation.crls import RevocationList
    from gateway.sta.trust_anchors.anchors import AnchorStore

DEVELOPMENT_SUBJECT = "Development CA of "


def trust_warnings(
    settings: Settings, agent: SecurityTrustAgent, lists: Sequence[RevocationList], at: datetime
) -> list[str]:
    """Every doubt about the trust in force; ``lists`` are the operator's, ``at`` is now (aware)."""
    return [
        *agent.anchors.warnings,
        *agent.keys.warnings,
        *_keyless_addresses(settings.practice, agent.keys),
        *_strangers_folders(settings.practice, agent.anchors),
        *_unread_lists(settings),
        *_expired_lists(lists, at),
        *_development_anchors(settings, agent.anchors),
    ]


def _keyless_addresses(practice: PracticeSettings, keys: KeyRing) -> Iterator[str]:
    """Nobody can encrypt to them: their mail is taken and then refused."""
    for address in practice.addresses:
        if not keys.keys_for([address]):
            yield f"practice.addresses: {address} has no key: mail to it is refused"


def _strangers_folders(practice: PracticeSettings, anchors: AnchorStore) -> Iterator[str]:
    """Sub-folders of anchors whose owner is not here, most often for a misspelt name."""
    ours = {*practice.domains, *practice.addresses}
    placed = {grant.owner for grant in anchors.grants if grant.owner and not grant.is_bundle}
    for owner in sorted(placed - ours):
        kind = "address" if "@" in owner else "domain"
        yield (
            f"trust.anchors_dir: the sub-folder {owner} is named after no {kind} of this practice: nobody trusts what "
            f"is in it; compare practice.{'addresses' if kind == 'address' else 'domains'}"
        )


def _unread_lists(settings: Settings) -> Iterator[str]:
    """Lists that nobody reads, most often for their suffix: whom they revoke stays trusted."""
    from gateway.agents import unread_crl_files  # noqa: PLC0415 - see gateway.cli.session

    return (f"trust.crls_dir: {told}" for told in unread_crl_files(settings.trust))


def _expired_lists(lists: Sequence[RevocationList], at: datetime) -> Iterator[str]:
    """Lists that count no more, without a successor of the same issuer and scope beside them."""
    current = {_kind(one) for one in lists if one.is_in_force(at)}
    for one in lists:
        if one.is_in_force(at) or _kind(one) in current or (one.next_update is not None and at < one.this_update):
            continue
        issuer = one.parsed.issuer.rfc4514_string()
        if one.next_update is None:
            yield f"trust.crls_dir: the revocation list of {issuer} says no nextUpdate, and does not count"
        else:
            yield (
                f"trust.crls_dir: the revocation list of {issuer} is out of date since {one.next_update.isoformat()}; "
                "put its successor in its place"
            )


def _kind(one: RevocationList) -> tuple[str, bytes, bool]:
    return one.issuer_key, one.scope_der, one.is_delta


def _development_anchors(settings: Settings, anchors: AnchorStore) -> list[str]:
    """A warning when an authority that ``init`` made is trusted: whoever has its key can be anybody here."""
    authority = b""
    with contextlib.suppress(OSError, ValueError):
        made = settings.trust.anchors_dir.parent / "ca" / "ca.cert.pem"
        authority = ssl.PEM_cert_to_DER_cert(made.read_text(encoding="ascii"))
    for anchor in anchors.all().certificates:
        if anchor.der == authority or DEVELOPMENT_SUBJECT in anchor.as_signer("").subject:
            folder = settings.trust.anchors_dir
            advice = f"for trying out only; before real mail take it out of {folder}, and remove certs/ca"
            return [f"trust.anchors_dir: a development authority made by init is trusted: {advice}"]
    return []
