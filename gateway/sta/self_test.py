"""The start-up self-test: does the installed cryptographic library do what the verdict rests on?

The gateway relies on properties that a build of the library may lack (a distribution's own package, an old OpenSSL):
wrong RSA padding must look like any other key (implicit rejection, S/MIME rule 2), and a short authentication tag
must be refused (rule 22). Besides, each algorithm of the matrix is asked one question whose answer is known, and one
whose answer must be no. The answers were made by another program (``tests/support/make_known_answers.py``).

Guarantees: touches no key, file or message of the gateway. Failure modes: :class:`SelfTestError` that names what
failed; a gateway that starts all the same would judge by a broken tool.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from base64 import b64decode
from collections.abc import Callable, Iterator
from functools import partial
from importlib.resources import files
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, x25519
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_der_public_key

from gateway.core.errors import RejectionError, SelfTestError
from gateway.core.verdict import Reason
from gateway.sta.algorithm_policy import CONTENT_ENCRYPTIONS, MIN_TAG_BYTES, Algorithm
from gateway.sta.certificates import Certificate
from gateway.sta.cms.ber import Document
from gateway.sta.cms.content_cipher import ContentCipher, decrypt_aead, decrypt_cbc, read_cipher
from gateway.sta.cms.content_info import DATA
from gateway.sta.cms.der import integer, octet_string, sequence
from gateway.sta.fetching.authority_access import access_urls, distribution_points
from gateway.sta.hash_algorithms import HASHES
from gateway.sta.paths.certificate_rules import check_leaf

_PROBES = 4
"""Random ciphertexts that are tried; a library without implicit rejection answers none of them with a key."""

Check = tuple[str, Callable[[], bool]]


def run_self_test(*, require_implicit_rejection: bool = True) -> tuple[str, ...]:
    """Run every check and return their names.

    ``require_implicit_rejection=False`` leaves out the one property that the agent can do without: it goes on with a
    random key in any case, so that only the time of the operation could tell.

    Raises:
        SelfTestError: a check failed; the text names it and the mend.
    """
    answers: dict[str, Any] = json.loads(files("gateway.sta").joinpath("known_answers.json").read_text("ascii"))
    passed = []
    for name, check in _checks(answers):
        if name == "implicit rejection" and not require_implicit_rejection:
            continue
        try:
            holds = check()
        except Exception:  # noqa: BLE001 - a library that raises where it must answer has failed the check
            holds = False
        if not holds:
            raise SelfTestError(name)
        passed.append(name)
    return tuple(passed)


def _checks(answers: dict[str, Any]) -> Iterator[Check]:
    rsa_key = load_der_private_key(b64decode(answers["rsa_private"]), None)
    assert isinstance(rsa_key, rsa.RSAPrivateKey)  # noqa: S101 - it is our own file
    yield "implicit rejection", partial(_rejects_implicitly, rsa_key)
    yield "tag floor", _tag_floor
    yield "certificate", partial(_reads, b64decode(answers["certificate"]))
    text, secret = b64decode(answers["text"]), bytes.fromhex(answers["secret"])
    for name, digest in answers["digests"].items():
        yield name, partial(_digests, name, digest, text)
    for name, key, signature in answers["signatures"]:
        yield name, partial(_verifies, name, key, signature, text)
    for name, wrapped in answers["key_transports"].items():
        yield name, partial(_transports, rsa_key, name, b64decode(wrapped), secret)
    for name, agreement in answers["agreements"].items():
        yield f"ecdh {name}", partial(_agrees, agreement)
    info = bytes.fromhex(answers["key_derivation_info"])
    for name, derived in answers["key_derivations"].items():
        yield name, partial(_derives, name, derived, secret, info)
    wrapped_key = bytes.fromhex(answers["wrapped_key"])
    for name, wrapped in answers["key_wraps"].items():
        yield name, partial(_unwraps, name, secret, bytes.fromhex(wrapped), wrapped_key)
    for name, answer in answers["contents"].items():
        yield name, partial(_decrypts, name, answer, secret, text)


def _reads(der: bytes) -> bool:
    """Whether a certificate with every extension is read.

    The parser sets up its classes when it first meets them, and not for several threads at once: it does so here.
    """
    certificate = Certificate(der)
    check_leaf(certificate)
    read = (
        certificate.asn1.name_constraints_value,
        certificate.asn1.certificate_policies_value,
        certificate.asn1.policy_constraints_value,
        certificate.asn1.authority_key_identifier_value,
    )
    urls = (
        *access_urls(certificate, "ocsp"),
        *access_urls(certificate, "ca_issuers"),
        *distribution_points(certificate),
    )
    names = [name.value for name in certificate.names]
    return names == ["self.test@direct.example.org"] and len(urls) == 3 and all(one is not None for one in read)


def _digests(name: str, expected: str, text: bytes) -> bool:
    return hashlib.new(name, text).hexdigest() == expected


def _rejects_implicitly(key: rsa.RSAPrivateKey) -> bool:
    """Whether a wrong padding yields some bytes, always the same ones, instead of an error."""
    for _ in range(_PROBES):
        wrong = secrets.randbelow(key.public_key().public_numbers().n).to_bytes(key.key_size // 8, "big")
        if key.decrypt(wrong, padding.PKCS1v15()) != key.decrypt(wrong, padding.PKCS1v15()):
            return False
    return True


def _content_encryption(name: str) -> Algorithm:
    return next(row for row in CONTENT_ENCRYPTIONS.values() if row.name == name)


def _tag_floor() -> bool:
    """Whether a tag below the floor is refused before anything is decrypted (e05)."""
    row = _content_encryption("aes-256-gcm")
    parameters = Document(sequence(sequence(octet_string(bytes(12)), integer(MIN_TAG_BYTES - 1)))).root().open()
    try:
        read_cipher(row, parameters)
    except RejectionError as refusal:
        cipher = ContentCipher(row, bytes(12), MIN_TAG_BYTES)
        return refusal.reason is Reason.WEAK_ALGORITHM and _refuses_short_tag(cipher)
    return False


def _refuses_short_tag(cipher: ContentCipher) -> bool:
    try:
        return decrypt_aead(cipher, bytes(32), memoryview(bytes(16)), bytes(MIN_TAG_BYTES - 1), b"") is None
    except ValueError:
        return True


def _verifies(name: str, public_key: str, signature: str, text: bytes) -> bool:
    """Whether the signature holds over the text, and over no other."""
    key: Any = load_der_public_key(b64decode(public_key))
    family, _, digest = name.rpartition("-")
    arguments: tuple[Any, ...] = ()
    if isinstance(key, rsa.RSAPublicKey):
        algorithm = HASHES[digest]
        pss = padding.PSS(padding.MGF1(algorithm), algorithm.digest_size)
        arguments = (pss if family == "rsa-pss" else padding.PKCS1v15(), algorithm)
    elif isinstance(key, ec.EllipticCurvePublicKey):
        arguments = (ec.ECDSA(HASHES[digest]),)
    elif not isinstance(key, ed25519.Ed25519PublicKey):
        return False
    key.verify(b64decode(signature), text, *arguments)
    try:
        key.verify(b64decode(signature), text + b"\n", *arguments)
    except InvalidSignature:
        return True
    return False


def _transports(key: rsa.RSAPrivateKey, name: str, wrapped: bytes, secret: bytes) -> bool:
    if name == "rsa-pkcs1v15":
        return key.decrypt(wrapped, padding.PKCS1v15()) == secret
    algorithm = HASHES[name.rpartition("-")[2]]
    return key.decrypt(wrapped, padding.OAEP(padding.MGF1(algorithm), algorithm, None)) == secret


def _agrees(agreement: dict[str, str]) -> bool:
    private = load_der_private_key(b64decode(agreement["private"]), None)
    peer = load_der_public_key(b64decode(agreement["peer"]))
    shared = b""
    if isinstance(private, x25519.X25519PrivateKey) and isinstance(peer, x25519.X25519PublicKey):
        shared = private.exchange(peer)
    elif isinstance(private, ec.EllipticCurvePrivateKey) and isinstance(peer, ec.EllipticCurvePublicKey):
        shared = private.exchange(ec.ECDH(), peer)
    return hmac.compare_digest(shared, bytes.fromhex(agreement["secret"]))


def _derives(name: str, expected: str, secret: bytes, info: bytes) -> bool:
    family, _, digest = name.partition("-")
    algorithm = HASHES[digest]
    if family == "hkdf":
        derived = HKDF(algorithm, 32, salt=None, info=info).derive(secret)
    else:
        derived = X963KDF(algorithm, 32, sharedinfo=info).derive(secret)
    return hmac.compare_digest(derived, bytes.fromhex(expected))


def _unwraps(name: str, secret: bytes, wrapped: bytes, key: bytes) -> bool:
    wrapping_key = secret[: int(name.split("-")[1]) // 8]
    try:
        aes_key_unwrap(wrapping_key, bytes([wrapped[0] ^ 1]) + wrapped[1:])
    except InvalidUnwrap:
        return aes_key_unwrap(wrapping_key, wrapped) == key
    return False


def _decrypts(name: str, answer: Any, secret: bytes, text: bytes) -> bool:
    row = _content_encryption(name)
    if row.family == "aes-cbc":
        content = memoryview(bytes.fromhex(answer))
        plain_text = decrypt_cbc(ContentCipher(row, secret[16:]), secret[: row.key_bytes], content, DATA)
        return plain_text is not None and bytes(plain_text) == text
    key, nonce, associated, plain, encrypted, tag = (
        bytes.fromhex(answer[part]) for part in ("key", "nonce", "associated", "plain", "encrypted", "tag")
    )
    cipher = ContentCipher(row, nonce, len(tag))
    altered = bytes([tag[0] ^ 1]) + tag[1:]
    return (
        decrypt_aead(cipher, key, memoryview(encrypted), tag, associated) == plain
        and decrypt_aead(cipher, key, memoryview(encrypted), altered, associated) is None
    )
