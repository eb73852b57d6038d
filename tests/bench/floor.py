"""The floor: the primitives that every program needs for such a message, and nothing around them.

No parsing and no checks: keys are loaded and every offset is known in advance. It is the cheapest arrangement that
was found: the content is decrypted in the place where base64 was decoded to. At 25 MB, where fresh memory costs more
than it looks, that takes a quarter to a third off the time of a second buffer, and 2 to 6 % off decoding and
decrypting in turns of 1 MB; below 1 MB all of them cost the same. Decrypting slice by slice, taking the digest slice
by slice, and the digest of ``cryptography`` instead of ``hashlib`` change nothing.
"""

from __future__ import annotations

import hashlib

import pybase64
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate

from tests.bench.world import BenchError, Plan, World

ROOM_BYTES = 16
"""AES asks for so much room behind what it writes."""


class Floor:
    """Opens one message."""

    def __init__(self, world: World, size: str) -> None:
        self._plan: Plan = world.plan(size)
        key = load_pem_private_key(world.recipient_key.read_bytes(), None)
        public = load_pem_x509_certificate(world.signer_certificate.read_bytes()).public_key()
        if not isinstance(key, rsa.RSAPrivateKey) or not isinstance(public, rsa.RSAPublicKey):
            raise BenchError("the keys of the benchmark are not RSA")
        self._key, self._public = key, public

    def __call__(self, raw: bytes) -> None:
        """Decode, decrypt, digest, verify.

        Raises:
            InvalidSignature, BenchError: the offsets are wrong.
        """
        plan = self._plan
        buffer = pybase64.b64decode_as_bytearray(memoryview(raw)[slice(*plan.body)])
        buffer.extend(bytes(ROOM_BYTES))
        der = memoryview(buffer)
        content_key = self._key.decrypt(bytes(der[slice(*plan.encrypted_key)]), padding.PKCS1v15())
        context = Cipher(algorithms.AES(content_key), modes.CBC(bytes(der[slice(*plan.iv)]))).decryptor()
        plain = der[plan.ciphertext[0] :]
        context.update_into(der[slice(*plan.ciphertext)], plain)
        digest = hashlib.sha256(plain[slice(*plan.signed)]).digest()
        signature = pybase64.b64decode(plain[slice(*plan.signature_body)])
        attributes = b"\x31" + signature[plan.attributes[0] + 1 : plan.attributes[1]]
        self._public.verify(signature[slice(*plan.signature)], attributes, padding.PKCS1v15(), hashes.SHA256())
        if digest != signature[slice(*plan.message_digest)]:
            raise BenchError("the floor did not find the signed part")
