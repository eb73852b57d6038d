"""Thousands of broken messages through the whole agent: real keys, real anchors, every layer.

Whatever is done to a message, the agent answers within a second, with a reason of its own, and never accepts bytes that
a trusted key did not sign. The quick suite runs a fixed portion; ``make test-all`` runs 20,000.
A failure names its number: ``_mutated(clinic, number)`` makes that message again.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import quopri
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator

import pytest

from gateway.core.verdict import Judgement, Reason
from gateway.sta.agent import SecurityTrustAgent
from tests.smime.clinic import Clinic
from tests.smime.specimens import Broken, Layer, Specimen, specimens
from tests.support.forge_names import der_of
from tests.support.mutations import Mutator
from tests.unit.sta.trust_world import RCPT, SENDER

QUICK = 1_200
ALL = 20_000
MEASURED = 25
"""Every so many messages the memory is measured, which slows the program down."""
FLOOR_BYTES = 1 << 20
"""What reading any message at all may take; beyond it four times the message's own size."""
_LAYERS = tuple(Layer)


_known: dict[int, list[Specimen]] = {}


def _mutated(clinic: Clinic, number: int) -> tuple[Specimen, Layer, Broken]:
    """The message of that number."""
    if id(clinic) not in _known:
        _known[id(clinic)] = specimens(clinic)
    known = _known[id(clinic)]
    specimen, layer = known[number % len(known)], _LAYERS[number // len(known) % len(_LAYERS)]
    return specimen, layer, specimen.broken(layer, Mutator(f"{specimen.name}/{layer}/{number}"))


def _faults(judgement: Judgement, specimen: Specimen, broken: Broken) -> Iterator[str]:
    """What is wrong with that answer."""
    if "could not be examined" in judgement.detail:
        yield f"an exception of ours: {judgement.detail}"
    if judgement.detail == "the message exceeds a safety limit":
        yield "memory or the stack ran out"
    if not judgement.accepted:
        if judgement.content is not None or judgement.delivered_to or judgement.inner_sha256:
            yield "a rejection that brings content"
        if not judgement.detail:
            yield "a rejection without a word"
        return
    if judgement.sender != SENDER or not set(judgement.delivered_to) <= {RCPT}:
        yield f"accepted for somebody else: {judgement.sender} to {judgement.delivered_to}"
    content = judgement.content or b""
    if judgement.wrapped:
        if content not in _enclosed(broken.signed):
            yield "accepted with other content"
    elif content[judgement.protected_offset :] != broken.signed:
        yield "accepted with other content"
    signer = judgement.certificates[0]
    if signer not in {der_of(one.by) for one in specimen.signers} and not broken.certificate_is_new:
        yield "accepted under a certificate that nobody issued"


def _enclosed(signed: bytes) -> list[bytes]:
    """What a signed ``message/rfc822`` entity may be said to enclose, read with the standard library's decoders."""
    normal = signed.replace(b"\r\n", b"\n")
    cut = len(normal.partition(b"\n\n")[0])
    at = next((at for at in range(cut, len(signed) + 1) if len(signed[:at].replace(b"\r\n", b"\n")) >= cut), cut)
    body = signed[at:].lstrip(b"\r\n") if b"\n\n" in normal else b""
    full = signed[at:].removeprefix(b"\r\n").removeprefix(b"\n").removeprefix(b"\r\n").removeprefix(b"\n")
    found = [body, full, quopri.decodestring(full)]
    with contextlib.suppress(binascii.Error):
        found.append(base64.b64decode(full))
    return found


def _run(clinic: Clinic, numbers: range) -> Counter[tuple[str, str]]:
    agents: dict[str, SecurityTrustAgent] = {}
    outcomes: Counter[tuple[str, str]] = Counter()
    wrong: list[str] = []
    for number in numbers:
        specimen, layer, broken = _mutated(clinic, number)
        agent = agents.setdefault(specimen.kind, clinic.agent(specimen.kind))
        measured = number % MEASURED == 0
        if measured:
            tracemalloc.start()
        began = time.process_time()
        try:
            judgement = clinic.world.judge(broken.raw, agent)
        finally:
            spent = time.process_time() - began
            peak = tracemalloc.get_traced_memory()[1] if measured else 0
            tracemalloc.stop()
        faults = list(_faults(judgement, specimen, broken))
        if spent > 1 and not measured:
            faults.append(f"{spent:.1f} s")
        if peak > FLOOR_BYTES + 4 * len(broken.raw):
            faults.append(f"{peak} bytes for a message of {len(broken.raw)}")
        wrong += [f"{number} ({specimen.name}, {layer}): {fault}" for fault in faults]
        outcomes[layer.value, judgement.reason.value] += 1
    assert wrong == []
    return outcomes


def test_the_specimens_are_valid(clinic: Clinic) -> None:
    """Else the mutations would all be refused for one and the same mistake."""
    known = specimens(clinic)
    assert len(known) == 7
    for specimen in known:
        judgement = clinic.judge(specimen.valid(), specimen.kind)
        assert (judgement.reason, judgement.detail) == (Reason.OK, ""), specimen.name


def test_a_fixed_portion_of_the_mutations(clinic: Clinic) -> None:
    outcomes = _run(clinic, range(QUICK))
    assert outcomes.total() == QUICK
    assert len({layer for layer, _ in outcomes}) == len(_LAYERS)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_thousand_mutations(clinic: Clinic) -> None:
    """No exception but ours, nothing altered accepted, a second and bounded memory each."""
    began = time.process_time()
    outcomes = _run(clinic, range(QUICK, QUICK + ALL))
    assert outcomes.total() == ALL
    assert time.process_time() - began < 600
    # Every layer is reached: each ends in several reasons, and some mutations do no harm.
    for layer in _LAYERS:
        assert len({reason for found, reason in outcomes if found == layer.value}) >= 3, layer
    assert sum(count for (_, reason), count in outcomes.items() if reason == "ok") > ALL // 50
