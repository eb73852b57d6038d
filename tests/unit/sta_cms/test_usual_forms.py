"""What is read without the walker says what the walker says, wherever an octet is altered."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from typing import Any

import pytest

from gateway.core.errors import RejectionError
from gateway.keys.file_key import FileKey
from gateway.sta.algorithm_policy import AlgorithmPolicy
from gateway.sta.cms import ber, content_info, enveloped, key_transport_entry, signature, signed
from gateway.sta.cms.signed import read_signed_data
from gateway.sta.cms.writing import OutgoingSigner, encrypt, sign_detached
from tests.unit.sta_cms.cms_samples import RECIPIENT, SENDER, TEXT, file_key, identity

AT = datetime(2026, 1, 5, 12, tzinfo=UTC)
LONG_TEXT = TEXT * 12
"""Lengths of two octets all the way in."""


@pytest.fixture(autouse=True)
def _forgetful() -> Iterator[None]:
    signed._openings.clear()
    yield
    signed._openings.clear()


def walk(patch: pytest.MonkeyPatch) -> None:
    """Leave everything to the walker."""
    nothing = re.compile(rb"(?!)")
    patch.setattr(enveloped, "_USUAL_CONTENT", nothing)
    patch.setattr(content_info, "_USUAL", nothing)
    patch.setattr(key_transport_entry, "_USUAL_KEYS", [])


@cache
def key_of_the_recipient() -> FileKey:
    return file_key(identity(RECIPIENT))


def opened(der: bytes) -> object:
    try:
        found = enveloped.open_enveloped(der, [key_of_the_recipient()])
    except RejectionError as fault:
        return fault.reason, fault.detail
    return bytes(found.content), found[1:]


def alterations(plain: bytes, start: int, end: int) -> Iterator[bytes]:
    for place in range(start, end):
        for octet in {plain[place] ^ 1, plain[place] ^ 0x20, 0x80, 0x00, 0xFF} - {plain[place]}:
            yield plain[:place] + bytes((octet,)) + plain[place + 1 :]
        yield plain[:place] + plain[place + 1 :]
        yield plain[:place] + b"\x02" + plain[place:]


def test_an_envelope_is_read_as_by_the_walker_whatever_is_altered(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = encrypt(LONG_TEXT, [identity(RECIPIENT).certificate_der])
    content = len(plain) - len(LONG_TEXT) // 16 * 16 - 16
    key = plain.index(b"\x04\x82\x01\x00") + 4
    altered = [plain, plain + b"\r\n", plain[:-1], *alterations(plain, 0, key + 2)]
    altered += alterations(plain, key + 254, content + 1)
    usual = [opened(der) for der in altered]
    with monkeypatch.context() as patch:
        walk(patch)
        walked = [opened(der) for der in altered]
    assert usual[0] == walked[0]
    assert isinstance(usual[0], tuple)
    assert usual[0][0] == LONG_TEXT
    assert [n for n, (one, other) in enumerate(zip(usual, walked, strict=True)) if one != other] == []


def test_several_recipients_are_read_as_by_the_walker(monkeypatch: pytest.MonkeyPatch) -> None:
    """The short way for one entry is not taken for the first of several."""
    both = [identity(SENDER).certificate_der, identity(RECIPIENT).certificate_der]
    for certificates in (both, both[::-1], both[:1], both[1:]):
        der = encrypt(LONG_TEXT, certificates)
        usual = opened(der)
        with monkeypatch.context() as patch:
            walk(patch)
            assert opened(der) == usual
        assert isinstance(usual, tuple)
        assert (usual[0] == LONG_TEXT) is (both[1] in certificates)


def test_the_usual_forms_are_those_that_are_met() -> None:
    """Else the test above compares the walker with itself."""
    plain = encrypt(LONG_TEXT, [identity(RECIPIENT).certificate_der])
    assert content_info._USUAL.match(plain)
    assert enveloped._USUAL_CONTENT.search(plain)
    key_transport_entry._beginning.cache_clear()
    opened(plain)
    opened(plain)
    assert key_transport_entry._beginning.cache_info().hits == 1


@pytest.mark.parametrize("transport", ["rsa-pkcs1v15", "rsa-oaep-sha256"])
def test_what_is_remembered_is_not_used_up(monkeypatch: pytest.MonkeyPatch, transport: str) -> None:
    """The bound on the elements of a document is one of each message, however many there were before it."""
    monkeypatch.setattr(ber, "FREE_ELEMENTS", 40)
    plain = encrypt(LONG_TEXT, [identity(RECIPIENT).certificate_der], transport)
    key_transport_entry._beginning.cache_clear()
    first = opened(plain)
    assert isinstance(first, tuple)
    assert first[0] == LONG_TEXT
    assert all(opened(plain) == first for _ in range(60))


@pytest.mark.parametrize("size", [256, 384])
def test_a_key_of_another_size_than_its_beginning_announces_is_left_to_the_walker(size: int) -> None:
    plain = encrypt(TEXT, [identity(RECIPIENT).certificate_der])
    info = content_info.read_content_info(plain)
    entry = info.content.open()
    entry.next("the version")
    encoded = entry.next("the recipients").open().next("a recipient").encoded
    found = key_transport_entry._beginning(encoded[:-256], size)
    assert (found is not None) is (size == 256)


def message(content: bytes, second: int) -> bytes:
    """A detached signature."""
    return sign_detached(content, OutgoingSigner.of(file_key(identity(SENDER))), AT.replace(second=second))


def read(der: bytes) -> object:
    try:
        found = read_signed_data(der)
    except RejectionError as fault:
        return fault.reason, fault.detail
    return (*found[:5], *[(*signer[:5], str(signer.defect)) for signer in found.signers])


def test_a_signer_of_a_known_form_is_read_as_by_the_walker_whatever_is_altered() -> None:
    first, second, plain = (message(text, n) for n, text in enumerate((b"one", b"two", b"three")))
    altered = [plain, *alterations(plain, len(plain) - 700, len(plain))]
    expected = []
    for der in altered:
        signed._openings.clear()
        expected.append(read(der))
    for der, outcome in zip(altered, expected, strict=True):
        signed._openings.clear()
        read(first)
        read(second)
        (known,) = signed._openings.values()
        assert known.signer is not None
        assert read(der) == outcome
        assert read(der) == outcome
    signed._openings.clear()
    read(first)
    read(second)
    (known,) = signed._openings.values()
    assert known.signer is not None
    found = known.signer.read(plain)
    assert found is not None
    assert found == read_signed_data(plain).signers[0]
    assert (
        found.signature == read_signed_data(plain).signers[0].signature != read_signed_data(first).signers[0].signature
    )


def verified(
    der: bytes, certificate: bytes, content: bytes, kind: str = content_info.DATA, policy: AlgorithmPolicy | None = None
) -> object:
    try:
        (signer,) = read_signed_data(der).signers
        return signature.verify_signer(signer, certificate, content, kind, policy or AlgorithmPolicy())
    except RejectionError as fault:
        return fault.reason, fault.detail


def know_the_form(certificate: bytes) -> None:
    """Read and verify what makes the reader remember the form, and the verifier what is settled by it."""
    signed._openings.clear()
    for n, text in enumerate((b"one", b"two", b"three", b"four")):
        assert isinstance(verified(message(text, n), certificate, text), signature.SignatureFacts)


def test_a_signer_of_a_known_form_is_verified_as_by_who_sees_it_first_whatever_is_altered() -> None:
    certificate, plain = identity(SENDER).certificate_der, message(b"five", 5)
    end = len(plain) - 240  # In the signature one octet is as good as another.
    altered = [plain, *alterations(plain, len(plain) - 700, end), *alterations(plain, len(plain) - 4, len(plain))]
    expected = []
    for der in altered:
        signed._openings.clear()
        expected.append(verified(der, certificate, b"five"))
    assert isinstance(expected[0], signature.SignatureFacts)
    know_the_form(certificate)
    known = dict(signed._openings)
    settled = signature._settled.cache_info().hits
    for der, outcome in zip(altered, expected, strict=True):
        signed._openings.clear()
        signed._openings.update(known)
        assert verified(der, certificate, b"five") == outcome
    # Whatever is altered in the digest, the time or the signature is met by it.
    assert signature._settled.cache_info().hits - settled > 200


@pytest.mark.parametrize(
    "changed",
    [
        {"content": b"six"},
        {"kind": content_info.SIGNED_DATA},
        {"certificate": identity(RECIPIENT).certificate_der},
        {"policy": AlgorithmPolicy(refused=frozenset({"sha256"}))},
        {"policy": AlgorithmPolicy(min_rsa_bits=4096)},
        {"policy": AlgorithmPolicy(refused=frozenset({"sha256"})), "content": b"six"},
        {"policy": AlgorithmPolicy(min_rsa_bits=4096), "content": b"six"},
    ],
)
def test_what_is_settled_holds_for_nothing_else(changed: dict[str, Any]) -> None:
    """Another content, type, certificate or policy is refused with the same words, by whomever it is asked."""
    certificate, plain = identity(SENDER).certificate_der, message(b"five", 5)
    asked = {"certificate": certificate, "content": b"five", **changed}
    expected = verified(plain, **asked)
    assert not isinstance(expected, signature.SignatureFacts)
    know_the_form(certificate)
    assert verified(plain, **asked) == expected
    assert isinstance(verified(plain, certificate, b"five"), signature.SignatureFacts)
    assert verified(plain, **asked) == expected


def test_a_form_holds_neither_digest_nor_time_nor_signature() -> None:
    first, second = message(b"one", 1), message(b"two", 2)
    read(first)
    read(second)
    (known,) = signed._openings.values()
    assert known.signer is not None
    (signer,) = read_signed_data(second).signers
    held = b"".join(octets for _, _, octets in known.signer.fixed)
    assert signer.signature not in held
    assert known.signer.signer.signature == b""
    assert len(known.signer.fresh) == 2
    for index, start, end in known.signer.fresh:
        assert signer.signed_attributes is not None
        assert second[start:end] == signer.signed_attributes[index].raw
        assert second[start + 17 : end] not in held
