"""CBC lets a stranger garble the Content-Type around the signature, which no signature covers: garbage is refused."""

from __future__ import annotations

import pytest

from gateway.core.verdict import Reason
from tests.smime.clinic import Clinic
from tests.unit.sta.trust_world import World


@pytest.fixture(scope="module")
def clinic() -> Clinic:
    return Clinic(World())


@pytest.mark.parametrize("garbage", [b"\x01\x9c\x1b", b"\xc3\x28\xe9", b"\x7f"])
def test_garbage_in_the_content_type_of_the_carrier_is_malformed(clinic: Clinic, garbage: bytes) -> None:
    carrier = clinic.signed()
    assert clinic.judge(clinic.sealed(carrier)).reason is Reason.OK
    head, found, rest = carrier.partition(b"protocol=")
    assert found
    garbled = head + b"pro" + garbage + b"col=" + rest
    assert clinic.judge(clinic.sealed(garbled)).reason is Reason.MALFORMED
