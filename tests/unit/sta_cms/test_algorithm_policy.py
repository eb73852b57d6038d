"""The algorithm matrix as data (AS-31..41)."""

from __future__ import annotations

import pytest

from gateway.core.errors import ConfigurationError, RejectionError
from gateway.core.verdict import FORBIDDEN_HERE, Reason, is_repaired_here
from gateway.sta import algorithm_policy
from gateway.sta.algorithm_policy import (
    CONTENT_ENCRYPTIONS,
    DEFAULT_POLICY,
    DIGESTS,
    KEY_AGREEMENTS,
    KEY_TRANSPORTS,
    KEY_WRAPS,
    POLICY_VERSION,
    SIGNATURES,
    AlgorithmPolicy,
    Role,
)

_TABLES = (CONTENT_ENCRYPTIONS, DIGESTS, KEY_AGREEMENTS, KEY_TRANSPORTS, KEY_WRAPS, SIGNATURES)


def test_the_floor_of_version_1_3() -> None:
    """AS-32, AS-34: this list is the contract; a change of it is a change of POLICY_VERSION."""
    allowed = sorted({row.name for table in _TABLES for row in table.values() if row.allowed})
    assert allowed == [
        "aes-128-cbc",
        "aes-128-gcm",
        "aes-128-wrap",
        "aes-192-cbc",
        "aes-192-gcm",
        "aes-192-wrap",
        "aes-256-cbc",
        "aes-256-gcm",
        "aes-256-wrap",
        "chacha20-poly1305",
        "ecdh-hkdf-sha256",
        "ecdh-hkdf-sha384",
        "ecdh-hkdf-sha512",
        "ecdh-sha1kdf",
        "ecdh-sha256kdf",
        "ecdh-sha384kdf",
        "ecdh-sha512kdf",
        "ecdsa",
        "ed25519",
        "rsa-oaep",
        "rsa-pkcs1v15",
        "rsa-pss",
        "sha256",
        "sha384",
        "sha512",
    ]
    assert POLICY_VERSION == "direct-1.3/2"


def test_no_allowed_signature_fixes_a_forbidden_digest() -> None:
    for row in SIGNATURES.values():
        if row.allowed:
            assert row.digest in ("", "sha256", "sha384", "sha512")


def test_each_row_stands_under_its_own_identifier() -> None:
    for table in _TABLES:
        for oid, row in table.items():
            assert row.oid == oid


@pytest.mark.parametrize("oid", ["1.2.840.113549.2.5", "1.3.14.3.2.26", "2.16.840.1.101.3.4.2.4", "1.2.3.4"])
def test_forbidden_and_unknown_digests(oid: str) -> None:
    with pytest.raises(RejectionError) as caught:
        DEFAULT_POLICY.require(Role.DIGEST, oid)
    assert caught.value.reason is Reason.WEAK_ALGORITHM


@pytest.mark.parametrize("name", ["sha1", "md5", "sha224", "", "sha3_256"])
def test_forbidden_digest_names(name: str) -> None:
    with pytest.raises(RejectionError) as caught:
        DEFAULT_POLICY.require_digest(name, "digest")
    assert caught.value.reason is Reason.WEAK_ALGORITHM


@pytest.mark.parametrize(
    ("bits", "exponent", "reason"),
    [
        (2047, 65537, Reason.WEAK_ALGORITHM),
        (2048, 3, Reason.WEAK_ALGORITHM),
        (2048, 65536, Reason.WEAK_ALGORITHM),
        (2048, 2**64 + 1, Reason.RESOURCE_LIMIT),
        (8193, 65537, Reason.RESOURCE_LIMIT),
    ],
)
def test_rsa_bounds(bits: int, exponent: int, reason: Reason) -> None:
    """AS-35."""
    with pytest.raises(RejectionError) as caught:
        DEFAULT_POLICY.require_rsa_key(bits, exponent)
    assert caught.value.reason is reason


@pytest.mark.parametrize(("bits", "exponent"), [(2048, 65537), (3072, 65537), (4096, 65537), (8192, 2**63 + 1)])
def test_rsa_keys_within_bounds(bits: int, exponent: int) -> None:
    DEFAULT_POLICY.require_rsa_key(bits, exponent)


@pytest.mark.parametrize("bits", [0, 1024, 2047, 9000])
def test_no_setting_lowers_the_floor(bits: int) -> None:
    """AS-41."""
    with pytest.raises(ConfigurationError, match=f"trust.min_rsa_bits must be between 2048 and 8192; it is {bits}"):
        AlgorithmPolicy(min_rsa_bits=bits)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("aes-128", "aes-128-cbc or aes-128-ccm or aes-128-cfb or aes-128-ecb or aes-128-gcm"),
        ("SHA-1", "sha1"),
        ("zzz", "known: 3des-cbc"),
        ("", "known: 3des-cbc"),
    ],
)
def test_a_misspelt_algorithm_names_the_setting_and_the_near_ones(name: str, near: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^trust.refuse_algorithms: {name!r} is no algorithm") as caught:
        AlgorithmPolicy(refused=frozenset({name}))
    assert near in str(caught.value)


def test_what_lies_below_the_floor_is_never_said_to_be_forbidden_by_the_settings() -> None:
    policy = AlgorithmPolicy(min_rsa_bits=3072, refused=frozenset({"sha1", "3des-cbc"}))
    for refused in (
        lambda: policy.require_rsa_key(2047, 65537),
        lambda: policy.require_digest("sha1", "digest"),
        lambda: policy.require(Role.CONTENT_ENCRYPTION, "1.2.840.113549.3.7"),
    ):
        with pytest.raises(RejectionError) as caught:
            refused()
        assert FORBIDDEN_HERE not in caught.value.detail
        assert not is_repaired_here(caught.value.reason, caught.value.detail)


def test_a_setting_may_raise_it() -> None:
    policy = AlgorithmPolicy(min_rsa_bits=3072, refused=frozenset({"sha512", "rsa-pkcs1v15"}))
    for refused in (
        lambda: policy.require_rsa_key(2048, 65537),
        lambda: policy.require_digest("sha512", "digest"),
        lambda: policy.require(Role.DIGEST, "2.16.840.1.101.3.4.2.3"),
        lambda: policy.require(Role.KEY_TRANSPORT, algorithm_policy.RSA_ENCRYPTION),
    ):
        with pytest.raises(RejectionError) as caught:
            refused()
        assert caught.value.reason is Reason.WEAK_ALGORITHM
        assert is_repaired_here(caught.value.reason, caught.value.detail)
