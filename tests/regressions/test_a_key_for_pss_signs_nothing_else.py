"""A key under id-RSASSA-PSS was believed with PKCS #1 v1.5 and with parameters that it forbids (RFC 4055 1.2, 3.3).

Found by the differential test: openssl refused what the gateway accepted.
"""

from __future__ import annotations

import pytest

from gateway.core.verdict import Reason
from tests.smime.clinic import Clinic
from tests.support.der_forge import algorithm, read, seq, tlv
from tests.support.forge_names import PSS, der_of
from tests.support.forge_signatures import Signed, Signing, pss_parameters
from tests.unit.sta.trust_world import World


@pytest.fixture(scope="module")
def clinic() -> Clinic:
    return Clinic(World())


def judged(clinic: Clinic, restriction: bytes | None, signing: Signing) -> Reason:
    """The verdict when the sender's certificate holds the same RSA key under id-RSASSA-PSS."""
    own = read(der_of(clinic.sender()))
    body = own.inside[0]
    body.inside[6].inside[0] = read(algorithm(PSS, *([] if restriction is None else [restriction])))
    signature = Signing(clinic.world.community.identity)._sign(body.encode())
    certificate = seq(body.encode(), own.inside[1].encode(), tlv(0x03, b"\0" + signature))
    content = Signed(clinic.entity, [signing], certificates=[certificate]).entity()
    return clinic.judge(clinic.sealed(content)).reason


def test_no_v15_signature_with_such_a_key(clinic: Clinic) -> None:
    for restriction in (None, pss_parameters("sha256", "sha256", 32)):
        assert judged(clinic, restriction, Signing(clinic.sender())) is Reason.BAD_SIGNATURE


def test_pss_within_what_the_key_allows(clinic: Clinic) -> None:
    sender = clinic.sender()
    for restriction in (None, pss_parameters("sha256", "sha256", 32), pss_parameters("sha256", "sha256", 20)):
        assert judged(clinic, restriction, Signing(sender, pss=True)) is Reason.OK


def test_pss_beyond_what_the_key_allows(clinic: Clinic) -> None:
    sender = clinic.sender()
    assert judged(clinic, pss_parameters("sha512", "sha512", 32), Signing(sender, pss=True)) is Reason.BAD_SIGNATURE
    assert judged(clinic, pss_parameters("sha256", "sha256", 40), Signing(sender, pss=True)) is Reason.BAD_SIGNATURE
    for sha1 in (seq(), pss_parameters("sha1", "sha1", 20)):
        assert judged(clinic, sha1, Signing(sender, pss=True)) is Reason.WEAK_ALGORITHM
