"""A SignerInfo named by key identifier fits every certificate of that key: old, renewed, somebody else's (AS-50).

The first one that verified was taken, so that an expired certificate beside its renewal refused a good message.
"""

from __future__ import annotations

from datetime import timedelta

import pytest

from gateway.core.verdict import Reason
from tests.smime.clinic import Clinic
from tests.support.forge_signatures import Signing
from tests.support.pki import Identity
from tests.unit.sta.trust_world import NOW, World, certificate_of


@pytest.fixture(scope="module")
def clinic() -> Clinic:
    return Clinic(World())


def companion(world: World, how: str, key: object) -> Identity:
    if how == "expired":
        return world.community.issue(key=key, ends=NOW - timedelta(days=1))  # type: ignore[arg-type]
    if how == "untrusted":
        return world.stranger.issue(key=key)  # type: ignore[arg-type]
    return world.community.issue("eve@direct.sender.example", key=key)  # type: ignore[arg-type]


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("how", ["expired", "untrusted", "somebody else"])
def test_the_certificate_that_holds_is_found_beside_others_of_the_same_key(
    clinic: Clinic, how: str, first: bool
) -> None:
    world = clinic.world
    good = world.signer
    other = companion(world, how, good.key)
    pair = [other, good] if first else [good, other]
    certificates = [certificate_of(one).der for one in pair]
    judgement = clinic.judge(clinic.sealed(clinic.signed(Signing(good, ski=True), certificates=certificates)))
    assert judgement.reason is Reason.OK
    assert judgement.signer is not None
    assert judgement.signer.sha256 == certificate_of(good).sha256


def test_others_of_the_same_key_alone_are_refused(clinic: Clinic) -> None:
    world = clinic.world
    others = [companion(world, how, world.signer.key) for how in ("expired", "untrusted", "somebody else")]
    certificates = [certificate_of(one).der for one in others]
    signing = Signing(world.signer, ski=True)
    assert clinic.judge(clinic.sealed(clinic.signed(signing, certificates=certificates))).reason is Reason.EXPIRED
