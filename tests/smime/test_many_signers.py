"""AS-50 and S/MIME rule 7: every SignerInfo is examined, in any order; one that is good, bound and trusted is enough.

The others are not lost: the evidence says of each what is wrong with it.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable
from datetime import timedelta

import pytest

from gateway.core.verdict import Judgement, Reason
from tests.smime.clinic import Clinic
from tests.support.der_forge import algorithm, integer, octets, seq, tlv
from tests.support.forge_names import der_of
from tests.support.forge_signatures import Signed, Signing, usual_attributes
from tests.support.pki import Identity, rsa_key
from tests.unit.sta.trust_world import NOW, SENDER, certificate_of, usage

Maker = Callable[[Clinic], Signing | bytes]


def wrong_signature(clinic: Clinic) -> Signing:
    return Signing(clinic.world.community.issue(slot=53), sign=lambda _: bytes(256))


def wrong_digest(clinic: Clinic) -> Signing:
    return Signing(clinic.world.community.issue(slot=53), attributes=sorted(usual_attributes(b"other")))


def weak_digest(clinic: Clinic) -> Signing:
    return Signing(clinic.world.community.issue(slot=53), digest="sha1")


def no_attributes(clinic: Clinic) -> Signing:
    return Signing(clinic.world.community.issue(slot=53), attributes=())


def untrusted(clinic: Clinic) -> Signing:
    return Signing(clinic.world.stranger.issue(slot=53))


def not_the_sender(clinic: Clinic) -> Signing:
    return Signing(clinic.world.community.issue("eve@direct.sender.example", slot=53))


def expired(clinic: Clinic) -> Signing:
    return Signing(clinic.world.community.issue(slot=53, ends=NOW - timedelta(days=1)))


def not_for_signing(clinic: Clinic) -> Signing:
    return Signing(clinic.world.community.issue(slot=53, key_usage=usage(key_encipherment=True)))


def short_key(clinic: Clinic) -> Signing:
    return Signing(clinic.world.community.issue(key=rsa_key(9, 1024)))


def without_certificate(clinic: Clinic) -> bytes:
    """Its certificate is not in the message, because a ready SignerInfo brings none."""
    return Signing(clinic.world.community.issue(slot=53)).info(clinic.entity)


def unknown_algorithm(clinic: Clinic) -> Signing:
    return Signing(clinic.world.community.issue(slot=53), signature_algorithm=algorithm("1.2.3.4"))


def unreadable(clinic: Clinic) -> bytes:
    return seq(integer(1), octets(b"what is this"))


def huge_serial(clinic: Clinic) -> bytes:
    """a09."""
    issuer = clinic.sender().certificate.issuer.public_bytes()
    return seq(integer(1), seq(issuer, tlv(0x02, b"\x01" * 1_000_000)))


def empty(clinic: Clinic) -> bytes:
    return seq()


BAD: list[Maker] = [
    wrong_signature,
    wrong_digest,
    weak_digest,
    no_attributes,
    untrusted,
    not_the_sender,
    expired,
    not_for_signing,
    short_key,
    without_certificate,
    unknown_algorithm,
    unreadable,
    huge_serial,
    empty,
]
_each = pytest.mark.parametrize("make", BAD, ids=lambda make: make.__name__)


def _judged(clinic: Clinic, *signers: Signing | bytes, opaque: bool = False) -> Judgement:
    return clinic.judge(clinic.sealed(Signed(clinic.entity, signers, opaque=opaque).entity()))


def _told_of(judgement: Judgement) -> set[int]:
    """The positions of the signers of which the evidence says something."""
    words = " ".join(check.detail for check in judgement.checks)
    return {number for number in range(1, 9) if re.search(rf"signer {number}\b", words)}


def _accepted_by(clinic: Clinic, judgement: Judgement, signer: Identity) -> bool:
    return (
        judgement.accepted
        and judgement.content == clinic.inner
        and judgement.signer is not None
        and judgement.signer.sha256 == certificate_of(signer).sha256
        and judgement.certificates[0] == der_of(signer)
    )


@_each
@pytest.mark.parametrize("opaque", [False, True])
def test_rule_7_a_good_signer_before_or_behind_any_bad_one(clinic: Clinic, make: Maker, opaque: bool) -> None:
    good = Signing(clinic.sender())
    for order in ([good, make(clinic)], [make(clinic), good]):
        judgement = _judged(clinic, *order, opaque=opaque)
        assert _accepted_by(clinic, judgement, clinic.sender()), (judgement.reason, judgement.detail)
        assert _told_of(judgement) == {1, 2}


@_each
def test_a_bad_one_alone_is_refused(clinic: Clinic, make: Maker) -> None:
    """Else the test above would show nothing."""
    judgement = _judged(clinic, make(clinic))
    assert not judgement.accepted
    assert "could not be examined" not in judgement.detail


@_each
def test_eight_signers_with_the_good_one_last(clinic: Clinic, make: Maker) -> None:
    judgement = _judged(clinic, *[make(clinic) for _ in range(7)], Signing(clinic.sender()))
    assert _accepted_by(clinic, judgement, clinic.sender()), (judgement.reason, judgement.detail)


def test_seven_bad_ones_of_every_kind_beside_a_good_one_at_every_place(clinic: Clinic) -> None:
    picked = random.Random(7).sample(BAD, 7)
    for place in range(8):
        signers = [make(clinic) for make in picked]
        signers.insert(place, Signing(clinic.sender()))
        judgement = _judged(clinic, *signers)
        assert _accepted_by(clinic, judgement, clinic.sender()), (place, judgement.reason, judgement.detail)
        assert _told_of(judgement) == set(range(1, 9))


def test_every_pair_of_bad_ones_is_refused(clinic: Clinic) -> None:
    """Two halves do not make a whole: the certificate of one and the signature of the other, for instance."""
    for one, other in itertools.permutations(BAD, 2):
        judgement = _judged(clinic, one(clinic), other(clinic))
        assert not judgement.accepted, (one.__name__, other.__name__)
        assert judgement.content is None


def test_nine_signers_are_too_many_wherever_the_good_one_stands(clinic: Clinic) -> None:
    for place in (0, 8):
        signers: list[Signing | bytes] = [untrusted(clinic) for _ in range(8)]
        signers.insert(place, Signing(clinic.sender()))
        assert _judged(clinic, *signers).reason is Reason.RESOURCE_LIMIT


def test_no_signer_at_all(clinic: Clinic) -> None:
    """s10: certificates alone are no signature."""
    bare = Signed(clinic.entity, [], [der_of(clinic.sender())], digests=["sha256"])
    assert clinic.judge(clinic.sealed(bare.entity())).reason is Reason.NOT_SIGNED


def test_two_certificates_of_the_sender_old_and_new(clinic: Clinic) -> None:
    """AS-14 on the sender's side: while keys are exchanged both sign, and either may be the one we trust."""
    old = clinic.world.community.issue(slot=53, ends=NOW - timedelta(days=1))
    new = clinic.world.community.issue(SENDER, slot=50)
    for order in ([old, new], [new, old]):
        judgement = _judged(clinic, *[Signing(one) for one in order])
        assert _accepted_by(clinic, judgement, new)


def test_the_fault_that_is_told_is_that_of_the_sender_and_not_of_a_stranger(clinic: Clinic) -> None:
    """s12: the stranger's signature is good, the sender's is not. Nobody may be sent after the wrong cause."""
    bad = Signing(clinic.sender(), sign=lambda _: bytes(256))
    for order in ([bad, not_the_sender(clinic)], [not_the_sender(clinic), bad]):
        assert _judged(clinic, *order).reason is Reason.BAD_SIGNATURE
    for order in ([untrusted(clinic), not_the_sender(clinic)], [not_the_sender(clinic), untrusted(clinic)]):
        assert _judged(clinic, *order).reason is Reason.UNTRUSTED
