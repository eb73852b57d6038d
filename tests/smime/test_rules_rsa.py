"""S/MIME rules 15 and 23: RSA keys that cost time, and PKCS #1 v1.5 signatures that are nearly right.

The signatures are made with the sender's own key, block by block, so that nothing but the rule stands in their way.
"""

from __future__ import annotations

import hashlib
import time
from functools import partial
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from gateway.core.verdict import Reason
from gateway.sta.trust_anchors.anchors import AnchorStore
from tests.smime.clinic import Clinic
from tests.support.der_forge import NULL, algorithm, integer, octets, read, seq, tlv
from tests.support.forge_names import DIGEST_OIDS, RSA, der_of
from tests.support.forge_signatures import (
    Signing,
)
from tests.support.pki import Identity
from tests.unit.sta.trust_world import CA, SENDER, _ca, certificate_of
from tests.unit.sta.trust_world import name as common_name


def judged(clinic: Clinic, *signers: Signing | bytes, **options: Any) -> Reason:
    judgement = clinic.judge(clinic.sealed(clinic.signed(*signers, **options)))
    assert "could not be examined" not in judgement.detail
    assert judgement.accepted == (judgement.content is not None)
    return judgement.reason


# --- rule 15 ---


def _with_key(clinic: Clinic, modulus: int, exponent: int, *, is_ca: bool = False) -> Identity:
    """A genuine certificate for a key that need not be a real one: nothing may be computed with it."""
    model = (
        clinic.world.community.below("Costly CA", 57).identity
        if is_ca
        else clinic.world.community.issue(SENDER, slot=50)
    )
    certificate = read(der_of(model))
    body = certificate.inside[0]
    numbers = seq(integer(modulus), integer(exponent))
    body.inside[6] = read(seq(algorithm(RSA, NULL), tlv(0x03, b"\0" + numbers)))
    signature = Signing(clinic.world.community.identity)._sign(body.encode())
    der = seq(body.encode(), certificate.inside[1].encode(), tlv(0x03, b"\0" + signature))
    return _Made(der, model)


class _Made(Identity):
    """A certificate that the library need not be able to read."""

    def __init__(self, der: bytes, model: Identity) -> None:
        super().__init__(model.certificate, model.key)
        object.__setattr__(self, "der", der)


def _der(identity: Identity) -> bytes:
    made: bytes = getattr(identity, "der", b"") or der_of(identity)
    return made


COSTLY = {
    "3072 bits and an exponent of 3001": (1 << 3071 | 1, 1 << 3000 | 1, Reason.RESOURCE_LIMIT),
    "16384 bits": (1 << 16383 | 1, 65537, Reason.RESOURCE_LIMIT),
    "8193 bits": (1 << 8192 | 1, 65537, Reason.RESOURCE_LIMIT),
    "a million bits": (1 << 400_000 | 1, 65537, Reason.RESOURCE_LIMIT),
    "an exponent of 65 bits": (1 << 2047 | 1, 1 << 64 | 1, Reason.RESOURCE_LIMIT),
    "exponent 3": (1 << 2047 | 1, 3, Reason.WEAK_ALGORITHM),
    "exponent 1": (1 << 2047 | 1, 1, Reason.WEAK_ALGORITHM),
    "an even exponent": (1 << 2047 | 1, 65538, Reason.WEAK_ALGORITHM),
    "2047 bits": (1 << 2046 | 1, 65537, Reason.WEAK_ALGORITHM),
    "modulus zero": (0, 65537, Reason.MALFORMED),
    "negative modulus": (-(1 << 2047), 65537, Reason.MALFORMED),
}


@pytest.mark.parametrize("name", COSTLY)
def test_rule_15_a_costly_key_is_refused_before_anything_is_computed_with_it(
    clinic: Clinic, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A verification with 16384 bits or a long exponent costs up to a hundred of the usual ones."""
    modulus, exponent, reason = COSTLY[name]
    made = _with_key(clinic, modulus, exponent)
    body = read(_der(made)).inside[0]
    sid = seq(body.inside[3].encode(), body.inside[1].encode())
    signing = Signing(clinic.sender(), sid=sid)
    raw = clinic.sealed(clinic.signed(signing, certificates=[_der(made)]))
    began = time.process_time()
    judgement = clinic.judge(raw)
    assert time.process_time() - began < 0.2
    if reason is not Reason.MALFORMED:
        assert judgement.reason is reason, judgement.detail
    assert not judgement.accepted
    assert "could not be examined" not in judgement.detail


@pytest.mark.parametrize("name", ["3072 bits and an exponent of 3001", "16384 bits", "a million bits"])
def test_rule_15_costly_authorities_do_not_multiply(clinic: Clinic, name: str) -> None:
    """32 of them in one message, all of the name that the signer's certificate was issued by."""
    modulus, exponent, _ = COSTLY[name]
    own = CA.root("Costly CA", 58).issue(SENDER, slot=50)
    authorities = [_der(_with_key(clinic, modulus - 2 * n, exponent, is_ca=True)) for n in range(31)]
    authorities = [one for one in authorities if len(one) < 65_000] or authorities[:1]
    raw = clinic.sealed(clinic.signed(Signing(own), certificates=[der_of(own), *authorities]))
    began = time.process_time()
    judgement = clinic.judge(raw)
    assert time.process_time() - began < 1
    assert not judgement.accepted


# --- rule 23: PKCS #1 v1.5 that is nearly right ---


def _digest_info(data: bytes, *, parameters: bytes = NULL, name: str = "sha256", digest: bytes | None = None) -> bytes:
    value = hashlib.sha256(data).digest() if digest is None else digest
    return seq(algorithm(DIGEST_OIDS[name], *([parameters] if parameters else [])), octets(value))


def _long_lengths(info: bytes) -> bytes:
    """The same DigestInfo with its outer length in two octets."""
    return b"\x30\x81" + info[1:]


def _block(info: bytes, *, filler: bytes = b"\xff", kind: bytes = b"\x01", behind: bytes = b"", few: int = 0) -> bytes:
    pads = few or 256 - 3 - len(info) - len(behind)
    return (b"\0" + kind + filler * pads + b"\0" + info + behind).ljust(256, b"\0")[:256]


def _laxities(data: bytes) -> dict[str, bytes]:
    good = _digest_info(data)
    digest = hashlib.sha256(data).digest()
    return {
        "NULL left out": _block(_digest_info(data, parameters=b"")),
        "parameters that are not NULL": _block(_digest_info(data, parameters=octets(b"x"))),
        "garbage in the parameters": _block(_digest_info(data, parameters=octets(bytes(150)))),
        "length in the long form": _block(_long_lengths(good)),
        "indefinite length": _block(b"\x30\x80" + good[2:] + b"\0\0"),
        "garbage behind the DigestInfo": _block(good, behind=b"garbage"),
        "garbage behind, little padding": _block(good, few=8, behind=bytes(150)),
        "garbage within the DigestInfo": _block(seq(good[2:], octets(b"more"))),
        "no padding at all": b"\0\x01\0" + good + bytes(256 - 3 - len(good)),
        "seven octets of padding": _block(good, few=7, behind=bytes(160)),
        "padding of zeros": _block(good, filler=b"\0"),
        "padding of block type 2": _block(good, kind=b"\x02", filler=b"\x55"),
        "one octet of padding that differs": _block(good).replace(b"\xff" * 20, b"\xff" * 19 + b"\xfe", 1),
        "first octet 1": b"\x01" + _block(good)[1:],
        "the digest without a DigestInfo": _block(digest),
        "an OCTET STRING without an algorithm": _block(octets(digest)),
        "another algorithm's name": _block(_digest_info(data, name="sha512")),
        "an unknown algorithm": _block(seq(algorithm("1.2.3", NULL), octets(digest))),
        "a digest that is too long": _block(_digest_info(data, digest=digest + b"\0")),
        "a digest that is too short": _block(_digest_info(data, digest=digest[:31])),
        "an empty digest": _block(_digest_info(data, digest=b"")),
        "a digest in chunks": _block(seq(algorithm(DIGEST_OIDS["sha256"], NULL), tlv(0x24, octets(digest)))),
        "nothing": bytes(256),
    }


def _raw_signature(key: Any, block: bytes) -> bytes:
    numbers = key.private_numbers()
    modulus = numbers.public_numbers.n
    power: int = pow(int.from_bytes(block, "big") % modulus, numbers.d, modulus)
    return power.to_bytes(256, "big")


def _lax(sender: Identity, name: str, data: bytes) -> bytes:
    return _raw_signature(sender.key, _laxities(data)[name])


def test_rule_23_a_v15_signature_is_right_to_the_last_bit_or_wrong(clinic: Clinic) -> None:
    """CVE-2026-12860 and its ancestors: made with the sender's own key, each of them differs in the block only."""
    sender = clinic.sender()
    count = 0
    for name in _laxities(b""):
        signing = Signing(sender, sign=partial(_lax, sender, name))
        assert judged(clinic, signing) is Reason.BAD_SIGNATURE, name
        count += 1
    assert count == 23
    assert judged(
        clinic, Signing(sender, sign=lambda data: _raw_signature(sender.key, _block(_digest_info(data))))
    ) is (Reason.OK), "else the blocks above prove nothing"


@pytest.mark.parametrize("change", ["longer", "shorter", "zero before", "plus the modulus", "zero", "one", "empty"])
def test_rule_23_the_number_has_one_form(clinic: Clinic, change: str) -> None:
    sender = clinic.sender()
    signing = Signing(sender)
    modulus: int = sender.certificate.public_key().public_numbers().n  # type: ignore[union-attr]

    def sign(data: bytes) -> bytes:
        good = signing._sign(data)
        return {
            "longer": good + b"\0",
            "shorter": good[:-1],
            "zero before": b"\0" + good,
            "plus the modulus": (int.from_bytes(good, "big") + modulus).to_bytes(257, "big"),
            "zero": bytes(256),
            "one": b"\x01".rjust(256, b"\0"),
            "empty": b"",
        }[change]

    assert judged(clinic, Signing(sender, sign=sign)) is Reason.BAD_SIGNATURE


def _cube_root(number: int) -> int:
    low, high = 0, 1 << (number.bit_length() // 3 + 2)
    while low < high:
        middle = (low + high) // 2
        if middle**3 < number:
            low = middle + 1
        else:
            high = middle
    return low


def _bleichenbacher_2006(data: bytes) -> bytes:
    """A cube root whose cube begins like a good block: a signature under any key with the exponent 3."""
    head = b"\0\x01" + b"\xff" * 8 + b"\0" + _digest_info(data)
    root = _cube_root(int.from_bytes(head + bytes(256 - len(head)), "big"))
    assert (root**3).to_bytes(256, "big").startswith(head)
    return root.to_bytes(256, "big")


def test_rule_23_no_cube_root_is_a_signature(clinic: Clinic) -> None:
    """Bleichenbacher 2006, with no private key: on a message, and on a certificate of an authority with exponent 3."""
    key = rsa.generate_private_key(3, 2048)
    signer = clinic.world.community.issue(SENDER, key=key)
    assert judged(clinic, Signing(signer, sign=_bleichenbacher_2006)) is Reason.WEAK_ALGORITHM
    with pytest.raises(InvalidSignature):
        key.public_key().verify(_bleichenbacher_2006(b"x"), b"x", padding.PKCS1v15(), hashes.SHA256())
    root = CA(Identity(_root_of(key), key))
    genuine = root.issue(SENDER, slot=50)
    body = read(der_of(genuine)).inside[0].encode()
    forged = seq(body, read(der_of(genuine)).inside[1].encode(), tlv(0x03, b"\0" + _bleichenbacher_2006(body)))
    agent = clinic.world.agent(anchors=AnchorStore((certificate_of(root.identity),)), ring=clinic.world.ring())
    for der, reason in ((der_of(genuine), Reason.OK), (forged, Reason.UNTRUSTED)):
        raw = clinic.sealed(clinic.signed(Signing(genuine), certificates=[der]))
        judgement = clinic.world.judge(raw, agent)
        assert judgement.reason is reason, judgement.detail


def _root_of(key: rsa.RSAPrivateKey) -> Any:
    return _ca("Exponent 3", key, common_name("Exponent 3"), key).certificate
