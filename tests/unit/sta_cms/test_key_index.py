"""Keys are found by what names them, in the right order, at a cost that does not grow with their number."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import cast

import pytest

from gateway.keys.file_key import FileKey
from gateway.ports import KeyOps
from gateway.sta.cms.der import integer
from gateway.sta.cms.enveloped import MAX_PRIVATE_OPERATIONS, open_enveloped
from gateway.sta.cms.identifiers import IssuerAndSerial, KeyIdentifier, certificate_fields
from gateway.sta.cms.key_index import KeyIndex
from gateway.sta.cms.writing import encrypt
from tests.unit.sta_cms.cms_samples import RECIPIENT, SENDER, TEXT, file_key, identity


@dataclass(frozen=True)
class Named:
    """A key of which only the certificate matters."""

    certificate: bytes


def keys(*certificates: bytes) -> list[KeyOps]:
    return [cast("KeyOps", Named(certificate)) for certificate in certificates]


def numbered(count: int) -> list[bytes]:
    """Certificates that differ in nothing but their serial numbers."""
    der = identity(RECIPIENT).certificate_der
    old = integer(certificate_fields(der).serial)
    return [der.replace(old, old[:-4] + n.to_bytes(4, "big"), 1) for n in range(count)]


@pytest.fixture(scope="module")
def rsa() -> FileKey:
    return file_key(identity(RECIPIENT))


def test_it_finds_what_a_comparison_of_all_finds() -> None:
    certificates = [*numbered(20), identity(RECIPIENT, "p256").certificate_der, identity(SENDER).certificate_der]
    held = keys(*certificates, certificates[3])
    index = KeyIndex(held)
    for certificate in certificates:
        fields = certificate_fields(certificate)
        for named in (
            IssuerAndSerial(fields.issuer, fields.serial),
            IssuerAndSerial(fields.issuer + b"\0", fields.serial),
            KeyIdentifier(fields.key_identifier),
        ):
            assert index.matching(named) == [k for k in held if named.matches(certificate_fields(k.certificate))]
    assert index.matching(IssuerAndSerial(b"", 1)) == index.matching(KeyIdentifier(b"")) == []


def test_those_preferred_come_first_in_their_order_and_the_others_stay_in_theirs() -> None:
    held = keys(*numbered(6))
    same = KeyIdentifier(certificate_fields(held[0].certificate).key_identifier)
    index = KeyIndex(held)
    assert index.preferring([held[4], held[1], *keys(identity(SENDER).certificate_der)]).matching(same) == [
        held[place] for place in (4, 1, 0, 2, 3, 5)
    ]
    assert index.preferring(()).matching(same) == index.matching(same) == held


def test_a_certificate_that_cannot_be_read_hides_no_other_key(rsa: FileKey) -> None:
    broken = cast("KeyOps", Named(b"\x30\x01"))
    assert open_enveloped(encrypt(TEXT, [rsa.certificate]), KeyIndex([broken, rsa])).content == TEXT


def test_a_key_that_does_not_fit_leaves_the_content_to_the_next(rsa: FileKey) -> None:
    """Decryption is in place: every wrong key must put back what it found."""
    stranger = file_key(identity(SENDER))
    wrong = FileKey(rsa.certificate, (), (), rsa.not_before, "other key", stranger._key)
    content = TEXT + b"x" * 100_000
    der = encrypt(content, [rsa.certificate])
    kept = bytes(bytearray(der))
    assert open_enveloped(der, [wrong] * (MAX_PRIVATE_OPERATIONS - 1) + [rsa]).content == content
    assert der == kept


def test_many_keys_and_many_recipients_are_not_multiplied() -> None:
    index = KeyIndex(keys(*numbered(5_000)))
    named = [IssuerAndSerial(b"nobody", serial) for serial in range(1_000)]
    began = time.process_time()
    for one in named:
        assert not index.preferring(()).matching(one)
    assert time.process_time() - began < 0.5
