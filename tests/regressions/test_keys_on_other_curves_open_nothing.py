"""A message encrypted to a key of ours on P-521 or another curve that the matrix does not name was opened (AS-38)."""

from __future__ import annotations

import pytest

from gateway.core.verdict import Reason
from tests.smime.clinic import SECRET, Clinic
from tests.support.forge_envelopes import kari
from tests.unit.sta.trust_world import World


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("p521", Reason.WEAK_ALGORITHM), ("p224", Reason.WEAK_ALGORITHM), ("p256", Reason.OK), ("p384", Reason.OK)],
)
def test_the_matrix_decides(kind: str, reason: Reason) -> None:
    clinic = Clinic(World())
    raw = clinic.sealed(clinic.signed(), [kari(clinic.recipient(kind), SECRET)])
    assert clinic.judge(raw, kind).reason is reason
