"""The product itself as two rows: the whole judgement, and its steps up to the verified signed bytes."""

from __future__ import annotations

from datetime import UTC, datetime

from gateway.core.message import Envelope
from gateway.core.mime import headers
from gateway.keys.loading import load_key_ring
from gateway.sta.agent import MAX_CERTIFICATES, SecurityTrustAgent, _Examination
from gateway.sta.certificates import parse_many
from gateway.sta.evidence import Evidence
from gateway.sta.revocation.crls import load_crls
from gateway.sta.revocation.revocation import RevocationSource
from gateway.sta.trust_anchors.anchor_folder import load_anchors
from tests.bench.world import RECIPIENT, SENDER, BenchError, World

ENVELOPE = Envelope(SENDER, (RECIPIENT,))


def agent_of(world: World) -> SecurityTrustAgent:
    """The agent as a daemon sets it up: keys, anchors and revocation lists from folders, nowhere to fetch from."""
    return SecurityTrustAgent(
        load_key_ring(world.identities), load_anchors(world.anchors), RevocationSource(load_crls(world.crls))
    )


def as_if_new() -> None:
    """Forget what only the very same message would say again: the next one of a correspondent has another boundary."""
    headers._last_content_type.cache_clear()


class Judge:
    """From the raw bytes to the verdict: unwrap, identity, fitness, path, revocation, routing, evidence."""

    def __init__(self, world: World) -> None:
        self._agent = agent_of(world)

    def __call__(self, raw: bytes) -> None:
        """Judge it.

        Raises:
            BenchError: the agent did not accept the message.
        """
        as_if_new()
        judgement = self._agent.judge(raw, ENVELOPE, datetime.now(UTC))
        if not judgement.accepted or not judgement.content:
            raise BenchError(f"the agent refused the message: {judgement.reason.value}: {judgement.detail}")


class Unwrap:
    """The agent's own steps from the raw bytes to the verified signed bytes; neither identity nor trust."""

    def __init__(self, world: World) -> None:
        self._agent = agent_of(world)

    def __call__(self, raw: bytes) -> None:
        """Open and verify it.

        Raises:
            RejectionError, BenchError: the agent did not get that far.
        """
        as_if_new()
        steps = _Examination(self._agent, raw, ENVELOPE, datetime.now(UTC), Evidence())
        signed = steps._unwrap(steps._read_outer())
        signatures, content = steps._verify(signed, parse_many(signed.signatures.certificates, MAX_CERTIFICATES))
        if not content or not any(signature.facts for signature in signatures):
            raise BenchError("no signature verified")
