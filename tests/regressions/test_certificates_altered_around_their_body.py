"""A certificate could be altered outside its signed part and was still accepted, under a fingerprint nobody issued.

Found by the mutation run: parameters of the outer algorithm, elements behind the signature and padded lengths went
unnoticed, and the evidence named a certificate that its authority had never seen (RFC 5280 4.1.1.2).
"""

from __future__ import annotations

import pytest

from gateway.core.verdict import Reason
from tests.smime.clinic import Clinic
from tests.support.der_forge import Node, algorithm, octets, read
from tests.support.forge_names import der_of
from tests.support.forge_signatures import Signed, Signing
from tests.unit.sta.trust_world import World


@pytest.fixture(scope="module")
def clinic() -> Clinic:
    return Clinic(World())


def other_parameters(certificate: Node) -> None:
    certificate.inside[1].inside[1] = read(octets(b"x" * 500))


def no_parameters(certificate: Node) -> None:
    del certificate.inside[1].inside[1]


def another_algorithm(certificate: Node) -> None:
    certificate.inside[1] = read(algorithm("1.2.840.113549.1.1.12"))


def something_behind(certificate: Node) -> None:
    certificate.inside.append(read(octets(b"behind")))


def padded_length(certificate: Node) -> None:
    certificate.size_octets = 4


CHANGES = [other_parameters, no_parameters, another_algorithm, something_behind, padded_length]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("whose", ["leaf", "issuer"])
def test_it_is_refused(clinic: Clinic, change: object, whose: str) -> None:
    assert callable(change)
    below = clinic.world.community.below("Issuing CA", 54)
    leaf = below.issue(slot=50)
    genuine = [der_of(leaf), der_of(below.identity)]
    position = 0 if whose == "leaf" else 1
    altered = read(genuine[position])
    change(altered)
    certificates = [*genuine]
    certificates[position] = altered.encode()
    for listed, accepted in ((genuine, True), (certificates, False)):
        content = Signed(clinic.entity, [Signing(leaf)], listed).entity()
        judgement = clinic.judge(clinic.sealed(content))
        assert judgement.accepted is accepted, judgement.detail
    assert judgement.reason in {Reason.UNTRUSTED, Reason.BAD_SIGNATURE, Reason.WEAK_ALGORITHM}
