"""What judging costs in memory, with thousands of keys, and with several threads at once."""

from __future__ import annotations

import base64
import hashlib
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ObjectIdentifier, UnrecognizedExtension

from gateway.core.message import Envelope
from gateway.sta.certificates import MAX_PARSED, MAX_REMEMBERED_BYTES, Certificate, parse_many
from gateway.sta.cms.der import integer
from gateway.sta.mime.mime_entity import read_entity
from tests.support.direct_messages import OpenSSLStack, outer_message, wrapped_entity
from tests.unit.sta.trust_world import NOW, RCPT, SENDER, World

ATTACHMENT = bytes(range(256)) * 12_000


def _large(world: World) -> bytes:
    return world.inner(attachment=ATTACHMENT)


@pytest.mark.parametrize("shape", ["detached", "opaque", "ber", "two recipients"])
def test_the_content_is_held_once_and_delivered_exactly(world: World, shape: str) -> None:
    """Beside the message itself: the decoded message, which becomes what is delivered; opaque forms once more."""
    inner = _large(world)
    if shape in {"opaque", "ber"}:
        if not OpenSSLStack.available():
            pytest.skip("the openssl command is not here")
        stack = OpenSSLStack(opaque=shape == "opaque", ber=shape == "ber")
        signed = stack.sign(wrapped_entity(inner), world.signer)
        raw = outer_message(stack.encrypt(signed, [world.rcpt]), SENDER, [RCPT])
    else:
        to = (world.other, world.rcpt) if shape == "two recipients" else (world.rcpt,)
        raw = world.message(inner, to=to)
    agent = world.agent()
    kept = hashlib.sha256(raw).digest()
    assert world.judge(world.message(), agent).accepted  # What is read once and kept is not part of the bill.
    tracemalloc.start()
    try:
        judgement = world.judge(raw, agent)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert judgement.accepted, judgement.detail
    assert type(judgement.content) is bytes
    assert judgement.content == inner
    assert judgement.inner_sha256 == hashlib.sha256(inner).hexdigest()
    assert hashlib.sha256(raw).digest() == kept
    decoded = 0.75 * len(raw)
    assert peak < (2.1 if shape == "opaque" else 1.1) * decoded


def test_a_message_without_an_envelope_costs_no_look_at_every_key(world: World) -> None:
    """AS-49: with nobody to say who it is for, any of thousands of keys may be meant."""
    ring = world.ring()
    asked = []

    class Many:
        """The ring with thousands of names, which remembers how many it was asked for at once."""

        _names = frozenset(f"user{n}@direct.clinic.example" for n in range(10_000)) | ring.names()

        def names(self) -> frozenset[str]:
            return self._names

        def keys_for(self, recipients: object) -> object:
            asked.append(len(recipients))  # type: ignore[arg-type]
            return ring.keys_for(recipients)  # type: ignore[arg-type]

    agent = world.agent(ring=Many())  # type: ignore[arg-type]
    raw = world.message()
    outer = read_entity(raw, what="it")
    assert agent.judge(raw, Envelope(None, ()), NOW).accepted
    began = time.process_time()
    for _ in range(100):
        agent.keys_to_try(Envelope(None, ()), outer)
        agent.keys_to_try(Envelope(SENDER, (RCPT,)), outer)
        agent.local([RCPT])
    assert time.process_time() - began < 0.2
    assert sorted(asked)[-2:] == [1, len(Many._names)]


def test_the_keys_of_another_ring_are_not_taken_for_those_of_this_one(world: World) -> None:
    agent = world.agent(ring=world.ring(world.other))
    assert agent.local(["x@elsewhere.example", RCPT]) == (RCPT,)
    assert not world.judge(world.message(), agent, rcpt=()).accepted
    agent.keys = world.ring(world.rcpt)
    assert world.judge(world.message(), agent, rcpt=()).accepted


def test_threads_share_certificates_but_not_what_is_parsed_on_the_way(world: World) -> None:
    certificate = parse_many([world.signer.certificate.public_bytes(Encoding.DER)], 1)[0]
    assert certificate.asn1 is certificate.asn1
    with ThreadPoolExecutor(1) as other:
        assert other.submit(lambda: certificate.asn1).result() is not certificate.asn1
    first = certificate.asn1
    serial = integer(certificate.serial)
    for n in range(MAX_PARSED):
        # So many others that the first one is let go.
        _ = Certificate(certificate.der.replace(serial, serial[:-2] + n.to_bytes(2, "big"), 1)).asn1
    assert certificate.asn1 is not first
    assert certificate.asn1.dump() == certificate.der


def test_several_threads_judge_alike(world: World) -> None:
    agent = world.agent()
    raws = [world.message(world.inner(message_id=f"<{n}@x.example>"), chain=[world.community]) for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda raw: world.judge(raw, agent), raws * 10))
    assert all(judgement.accepted for judgement in found)
    assert len({judgement.content for judgement in found}) == len(raws)


def test_only_small_certificates_are_remembered(world: World) -> None:
    der = world.signer.certificate.public_bytes(Encoding.DER)
    assert parse_many([der], 4)[0] is parse_many([bytes(bytearray(der))], 4)[0]
    big = world.community.issue(
        "big@x.example",
        subject="y" * 60,
        extra=[(UnrecognizedExtension(ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\5\0" + bytes(9_000)), False)],
    )
    large = big.certificate.public_bytes(Encoding.DER)
    assert len(large) > MAX_REMEMBERED_BYTES
    assert parse_many([large], 4)[0] is not parse_many([large], 4)[0]
    assert parse_many([large], 4) == parse_many([large], 4)


def test_base64_of_any_line_length_is_the_same_message(world: World) -> None:
    raw = world.message()
    head, _, body = raw.partition(b"\r\n\r\n")
    dense = base64.b64decode(body)
    for width in (4, 61, 64, 998):
        encoded = base64.b64encode(dense)
        lines = b"\r\n".join(encoded[i : i + width] for i in range(0, len(encoded), width))
        assert world.judge(head + b"\r\n\r\n" + lines).accepted
    assert not world.judge(head + b"\r\n\r\n" + lines.replace(b"\r\n", b"\r\n>", 1)).accepted
