"""Who is trusted alone must not be able to speak for others: a pinned certificate issues nothing (AS-65, AS-52)."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from gateway.core.errors import RejectionError
from gateway.core.verdict import Reason
from gateway.sta.paths.path_validation import validate_path
from gateway.sta.trust_anchors.anchors import AnchorStore
from tests.support.paths import build_paths
from tests.support.pki import Identity, rsa_key
from tests.unit.sta.trust_world import CA, NOW, SENDER, World, certificate_of, name, usage


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def test_a_pinned_correspondent_cannot_issue_a_certificate_for_somebody_else(world: World) -> None:
    eve = world.stranger.issue("eve@evil.example", slot=60)
    forged = CA(eve).issue(SENDER, slot=61)
    agent = world.agent(anchors=AnchorStore((certificate_of(eve),)))
    judgement = world.judge(world.message(signer=forged, chain=[eve]), agent)
    assert judgement.reason is Reason.UNTRUSTED
    own = world.message(world.inner(sender="eve@evil.example"), signer=eve)
    assert world.judge(own, agent, mail_from="eve@evil.example").reason is Reason.OK, "it still speaks for itself"


def _root(*extensions: tuple[x509.ExtensionType, bool]) -> CA:
    key = rsa_key(62)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name("Odd Root"))
        .issuer_name(name("Odd Root"))
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(NOW.replace(year=2020))
        .not_valid_after(NOW.replace(year=2030))
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return CA(Identity(builder.sign(key, hashes.SHA256()), key))


_CA = (x509.BasicConstraints(ca=True, path_length=None), True)
_NO_CA = (x509.BasicConstraints(ca=False, path_length=None), True)
_SIGNS = (usage(key_cert_sign=True), True)
_SIGNS_NOT = (usage(digital_signature=True), True)
_NAMED = (x509.SubjectAlternativeName([x509.RFC822Name("eve@evil.example")]), False)


@pytest.mark.parametrize(
    ("extensions", "issues"),
    [
        ((_CA,), True),
        ((_CA, _SIGNS), True),
        ((_SIGNS,), True),
        ((), True),
        ((_CA, _SIGNS_NOT), False),
        ((_NO_CA,), False),
        ((_NO_CA, _SIGNS), False),
        ((_SIGNS_NOT,), False),
        ((_NAMED,), False),
    ],
    ids=["ca", "ca that signs", "signs", "no extension", "ca for else", "no ca", "no ca that signs", "else", "named"],
)
def test_an_anchor_issues_when_it_says_so_or_is_too_old_to_say(extensions: tuple[Any, ...], issues: bool) -> None:
    """The rule is that of OpenSSL: a certificate of a person must not pass, an old root must."""
    root = _root(*extensions)
    [path] = build_paths(certificate_of(root.issue()), [root.certificate], [], NOW)
    if issues:
        validate_path(path, NOW)
        return
    with pytest.raises(RejectionError, match="not a certification authority") as caught:
        validate_path(path, NOW)
    assert caught.value.reason is Reason.UNTRUSTED
