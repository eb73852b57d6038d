"""Hostile input: whatever is done to a message, the reader answers with a RejectionError or with the true content.

Each mutation starts from a real message, so that it gets past the outer layers; that is what random bytes never do.
Whole messages through the whole agent, 20,000 of them, are in ``tests/smime/test_message_mutations.py``.
"""

from __future__ import annotations

import time
from functools import cache

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.core.errors import RejectionError
from gateway.core.verdict import Reason
from gateway.keys.file_key import FileKey
from gateway.sta.cms.content_info import content_type
from gateway.sta.cms.enveloped import open_enveloped
from gateway.sta.cms.signature import verify_signer
from gateway.sta.cms.signed import read_signed_data
from gateway.sta.cms.writing import encrypt
from tests.unit.sta_cms.cms_samples import RECIPIENT, SENDER, TEXT, Forge, children, file_key, identity, indefinite, tlv

_REASONS = frozenset(
    {
        Reason.MALFORMED,
        Reason.RESOURCE_LIMIT,
        Reason.CANNOT_DECRYPT,
        Reason.WEAK_ALGORITHM,
        Reason.BAD_SIGNATURE,
        Reason.KEY_USAGE,
    }
)
_SETTINGS = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
_INTERESTING_TAGS = [0x00, 0x02, 0x03, 0x04, 0x05, 0x06, 0x1F, 0x24, 0x30, 0x31, 0x80, 0xA0, 0xA1, 0xA2, 0xBF]


@cache
def keys() -> tuple[FileKey, FileKey]:
    return file_key(identity(RECIPIENT)), file_key(identity(RECIPIENT, "p256"))


@cache
def seeds() -> tuple[bytes, ...]:
    rsa, p256 = keys()
    sealed = encrypt(TEXT, [rsa.certificate, p256.certificate], "rsa-oaep-sha256")
    plain = encrypt(TEXT, [rsa.certificate])
    signed = Forge(econtent=TEXT).build()
    return (sealed, plain, signed, indefinite(sealed, 6), indefinite(signed, 8))


def attempt(der: bytes) -> None:
    """Read it every way there is; only the true content may come out, and only a RejectionError may be raised."""
    began = time.process_time()
    try:
        content_type(der)
    except RejectionError as error:
        assert error.reason in _REASONS  # noqa: PT017
    try:
        open_enveloped(der, keys())
    except RejectionError as error:
        assert error.reason in _REASONS  # noqa: PT017
    try:
        signed = read_signed_data(der)
        for signer in signed.signers:
            for certificate in (*signed.certificates, identity(SENDER).certificate_der):
                _verify(signer, certificate, bytes(signed.econtent or b""), signed.econtent_type)
    except RejectionError as error:
        assert error.reason in _REASONS  # noqa: PT017
    assert time.process_time() - began < 1.0


def _verify(signer: object, certificate: bytes, content: bytes, econtent_type: str) -> None:
    try:
        verify_signer(signer, certificate, content, econtent_type)  # type: ignore[arg-type]
    except RejectionError as error:
        assert error.reason in _REASONS  # noqa: PT017
    else:
        # The signature holds, so the content must be what was signed, whatever else was done to the message.
        assert content == TEXT


@_SETTINGS
@given(data=st.data())
def test_changed_octets(data: st.DataObject) -> None:
    der = bytearray(data.draw(st.sampled_from(seeds())))
    for _ in range(data.draw(st.integers(1, 4))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    attempt(bytes(der))


@_SETTINGS
@given(data=st.data())
def test_removed_and_inserted_octets(data: st.DataObject) -> None:
    der = data.draw(st.sampled_from(seeds()))
    start = data.draw(st.integers(0, len(der)))
    stop = data.draw(st.integers(start, min(len(der), start + 40)))
    attempt(der[:start] + data.draw(st.binary(max_size=40)) + der[stop:])


@_SETTINGS
@given(data=st.data())
def test_changed_structure(data: st.DataObject) -> None:
    """Drop, double, swap, empty, retag or nest elements anywhere, with all lengths made right again."""
    der = data.draw(st.sampled_from(seeds()[:3]))
    for _ in range(data.draw(st.integers(1, 3))):
        der = _mutate(der, data, data.draw(st.integers(1, 12)))
    attempt(der)


def _mutate(der: bytes, data: st.DataObject, depth: int) -> bytes:
    inside = _children(der)
    if not inside or depth == 0:
        return _change(der, data)
    position = data.draw(st.integers(0, len(inside) - 1))
    action = data.draw(st.sampled_from(["descend", "descend", "descend", "drop", "double", "swap", "change"]))
    if action == "descend":
        inside[position] = _mutate(inside[position], data, depth - 1)
    elif action == "drop":
        del inside[position]
    elif action == "double":
        inside *= data.draw(st.sampled_from([2, 40]))
    elif action == "swap":
        inside.reverse()
    else:
        inside[position] = _change(inside[position], data)
    return tlv(der[0], *inside)


def _change(der: bytes, data: st.DataObject) -> bytes:
    action = data.draw(st.sampled_from(["empty", "retag", "fill", "nest", "indefinite", "long"]))
    if action == "empty":
        return tlv(der[0])
    if action == "retag":
        return bytes((data.draw(st.sampled_from(_INTERESTING_TAGS)),)) + der[1:]
    if action == "fill":
        return tlv(der[0], data.draw(st.binary(max_size=64)))
    if action == "nest":
        return tlv(der[0] | 0x20, der)
    if action == "indefinite":
        return bytes((der[0] | 0x20, 0x80)) + der + b"\0\0"
    return tlv(der[0], b"\x7f" * 5000)


def _children(der: bytes) -> list[bytes]:
    if len(der) < 2 or not der[0] & 0x20 or der[1] == 0x80:
        return []
    try:
        return [child for child in children(der) if len(child) >= 2]
    except IndexError:
        return []


@_SETTINGS
@given(data=st.data())
def test_truncation(data: st.DataObject) -> None:
    der = data.draw(st.sampled_from(seeds()))
    attempt(der[: data.draw(st.integers(0, len(der) - 1))])
