"""A root with a path length constraint above zero anchors chains with an intermediate (AS-65; RFC 5280 4.2.1.9).

The validation library failed on every such chain, and each message below such a root was untrusted.
"""

from __future__ import annotations

import pytest

from gateway.core.verdict import Reason
from gateway.sta.trust_anchors.anchors import AnchorStore
from tests.unit.sta.trust_world import CA, World


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.mark.parametrize(
    ("limit", "depth", "reason"),
    [
        (0, 0, Reason.OK),
        (0, 1, Reason.UNTRUSTED),
        (1, 0, Reason.OK),
        (1, 1, Reason.OK),
        (1, 2, Reason.UNTRUSTED),
        (2, 2, Reason.OK),
        (9, 3, Reason.OK),
    ],
)
def test_a_chain_may_be_as_deep_as_the_anchor_allows(world: World, limit: int, depth: int, reason: Reason) -> None:
    root = CA.root("Limited Root", 70, path_length=limit)
    chain = [root]
    for level in range(depth):
        chain.append(chain[-1].below(f"Level {level}", 71 + level))
    raw = world.message(signer=chain[-1].issue(), chain=chain[1:])
    judgement = world.judge(raw, world.agent(anchors=AnchorStore((root.certificate,))))
    assert judgement.reason is reason
    assert "TypeError" not in judgement.detail
