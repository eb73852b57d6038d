"""A message may carry many certificates: the one issuer that matters counts wherever it stands (AS-28, AS-65)."""

from __future__ import annotations

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from gateway.core.errors import RejectionError
from gateway.core.verdict import Reason
from gateway.sta.paths.path_building import MAX_UNTRUSTED
from gateway.sta.paths.path_validation import validate_path
from tests.support.paths import build_paths
from tests.support.pki import rsa_key
from tests.unit.sta.trust_world import CA, NOW, certificate_of


def test_the_issuer_is_found_behind_many_other_certificates() -> None:
    root = CA.root("Root", 60)
    between = root.below("Between", 61)
    leaf = certificate_of(between.issue())
    unrelated = [certificate_of(root.issue(f"a{n}@x.example")) for n in range(MAX_UNTRUSTED + 4)]
    paths = build_paths(leaf, (root.certificate,), [*unrelated, between.certificate], NOW)
    assert paths == [(leaf, between.certificate, root.certificate)]


def test_a_second_issuer_in_the_message_is_found_after_the_first_was_fetched() -> None:
    root = CA.root("Root", 60)
    upper = root.below("Upper", 61)
    lower = upper.below("Lower", 62)
    leaf = certificate_of(lower.issue())
    paths = build_paths(
        leaf, (root.certificate,), [upper.certificate], NOW, lambda c: [lower.certificate] if c == leaf else []
    )
    assert paths == [(leaf, lower.certificate, upper.certificate, root.certificate)]


@pytest.mark.parametrize("for_mail", [True, False])
def test_an_intermediate_that_is_only_for_web_servers_issues_no_mail_certificate(for_mail: bool) -> None:
    """The extended key usage of an intermediate limits what it may issue, as every mail program reads it."""
    root = CA.root("Root", 60)
    purpose = ExtendedKeyUsageOID.EMAIL_PROTECTION if for_mail else ExtendedKeyUsageOID.SERVER_AUTH
    between = CA(
        root.issue([], key=rsa_key(61), is_ca=True, purposes=[purpose], subject="Between", key_usage=None),
    )
    path = (certificate_of(between.issue()), between.certificate, root.certificate)
    if for_mail:
        validate_path(path, NOW)
        return
    with pytest.raises(RejectionError) as caught:
        validate_path(path, NOW)
    assert caught.value.reason is Reason.UNTRUSTED
