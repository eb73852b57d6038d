"""Makes ``gateway/sta/known_answers.json``, the data of the start-up self-test, with the openssl command alone.

Run ``python -m tests.support.make_known_answers > gateway/sta/known_answers.json`` when the matrix gains an algorithm.
The keys are made for this file and protect nothing. AES-GCM and ChaCha20-Poly1305, which the command does not offer,
come from NIST's GCM test cases (SP 800-38D validation) and from RFC 8439 2.8.2.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from base64 import b64encode
from pathlib import Path

SECRET = bytes(range(32))
TEXT = b"Content-Type: text/plain\r\n\r\nknown answer\r\n"
WRAPPED_KEY = bytes(range(0x40, 0x60))
_SHARED_INFO = bytes(range(0x80, 0x90))
_GCM = {
    "aes-128-gcm": (
        "feffe9928665731c6d6a8f9467308308",
        "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091",
        "5bc94fbc3221a5db94fae95ae7121a47",
    ),
    "aes-192-gcm": (
        "feffe9928665731c6d6a8f9467308308feffe9928665731c",
        "3980ca0b3c00e841eb06fac4872a2757859e1ceaa6efd984628593b40ca1e19c7d773d00c144c525ac619d18c84a3f4718e2448b2fe324d9ccda2710",
        "2519498e80f1478f37ba55bd6d27618c",
    ),
    "aes-256-gcm": (
        "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
        "76fc6ece0f4e1768cddf8853bb2d551b",
    ),
}
_GCM_PLAIN = (
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
    "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
)
_CHACHA = {
    "key": "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
    "nonce": "070000004041424344454647",
    "associated": "50515253c0c1c2c3c4c5c6c7",
    "plain": b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
    b"sunscreen would be it.".hex(),
    "encrypted": "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b"
    "1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc3ff4def08e4b7a9d"
    "e576d26586cec64b6116",
    "tag": "1ae10b594f09e26a7e902ecbd0600691",
}


class Maker:
    """Runs openssl in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *words: str, data: bytes = b"") -> bytes:
        return subprocess.run(["openssl", *words], cwd=self.folder, input=data, capture_output=True, check=True).stdout

    def key(self, name: str, *words: str) -> None:
        self.run("genpkey", *words, "-out", name)

    def private(self, name: str) -> str:
        return b64encode(self.run("pkcs8", "-topk8", "-nocrypt", "-in", name, "-outform", "DER")).decode()

    def public(self, name: str) -> str:
        return b64encode(self.run("pkey", "-in", name, "-pubout", "-outform", "DER")).decode()

    def signature(self, key: str, digest: str, *options: str) -> str:
        (self.folder / "text").write_bytes(TEXT)
        words = [word for option in options for word in ("-sigopt", option)]
        return b64encode(self.run("dgst", f"-{digest}", "-sign", key, *words, "text")).decode()

    def transport(self, *options: str) -> str:
        words = [word for option in options for word in ("-pkeyopt", option)]
        return b64encode(self.run("pkeyutl", "-encrypt", "-inkey", "rsa", *words, data=SECRET)).decode()

    def agreement(self, own: str, peer: str) -> dict[str, str]:
        self.run("pkey", "-in", peer, "-pubout", "-out", peer + ".pub")
        secret = self.run("pkeyutl", "-derive", "-inkey", own, "-peerkey", peer + ".pub")
        return {"private": self.private(own), "peer": self.public(peer), "secret": secret.hex()}

    def kdf(self, name: str, digest: str) -> str:
        hexed = "hexsecret" if name == "X963KDF" else "hexkey"
        options = (f"digest:{digest}", f"{hexed}:{SECRET.hex()}", f"hexinfo:{_SHARED_INFO.hex()}")
        words = [word for option in options for word in ("-kdfopt", option)]
        return self.run("kdf", "-keylen", "32", "-binary", *words, name).hex()

    def cipher(self, name: str, key: bytes, vector: bytes, data: bytes) -> str:
        return self.run("enc", f"-{name}", "-K", key.hex(), "-iv", vector.hex(), data=data).hex()


def _certificate(make: Maker) -> str:
    """A certificate with every extension that the agent reads."""
    extensions = (
        "basicConstraints=critical,CA:FALSE",
        "keyUsage=critical,digitalSignature",
        "extendedKeyUsage=emailProtection",
        "subjectAltName=email:self.test@direct.example.org",
        "crlDistributionPoints=URI:http://crl.example.org/ca.crl",
        "authorityInfoAccess=OCSP;URI:http://ocsp.example.org,caIssuers;URI:http://ca.example.org/ca.p7c",
        "certificatePolicies=1.3.6.1.4.1.41179.0.1",
        "nameConstraints=permitted;email:direct.example.org",
        "policyConstraints=requireExplicitPolicy:3",
    )
    words = [word for extension in extensions for word in ("-addext", extension)]
    made = make.run("req", "-x509", "-new", "-key", "rsa", "-subj", "/CN=self test", "-days", "36500", *words)
    return b64encode(make.run("x509", "-outform", "DER", data=made)).decode()


def known_answers(make: Maker) -> dict[str, object]:
    """Return the whole document: one entry for each row of the matrix, by its name."""
    make.key("rsa", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048")
    for curve in ("P-256", "P-384"):
        for which in ("", "-peer"):
            make.key(curve + which, "-algorithm", "EC", "-pkeyopt", f"ec_paramgen_curve:{curve}")
    for name in ("ED25519", "X25519"):
        make.key(name, "-algorithm", name)
    make.key("X25519-peer", "-algorithm", "X25519")
    pss = ("rsa_padding_mode:pss", "rsa_pss_saltlen:digest")
    (make.folder / "text").write_bytes(TEXT)
    ed25519 = make.run("pkeyutl", "-sign", "-rawin", "-inkey", "ED25519", "-in", "text")
    key_wraps = {
        f"aes-{bits}-wrap": make.run(
            "enc", f"-id-aes{bits}-wrap", "-K", SECRET[: bits // 8].hex(), "-iv", "a6" * 8, data=WRAPPED_KEY
        ).hex()
        for bits in (128, 192, 256)
    }
    return {
        "text": b64encode(TEXT).decode(),
        "secret": SECRET.hex(),
        "rsa_private": make.private("rsa"),
        "certificate": _certificate(make),
        "digests": {name: make.run("dgst", f"-{name}", "-binary", data=TEXT).hex() for name in _DIGESTS},
        "signatures": [
            *([f"rsa-pkcs1v15-{d}", make.public("rsa"), make.signature("rsa", d)] for d in _DIGESTS),
            *([f"rsa-pss-{d}", make.public("rsa"), make.signature("rsa", d, *pss)] for d in _DIGESTS),
            ["ecdsa-p256-sha256", make.public("P-256"), make.signature("P-256", "sha256")],
            ["ecdsa-p256-sha512", make.public("P-256"), make.signature("P-256", "sha512")],
            ["ecdsa-p384-sha384", make.public("P-384"), make.signature("P-384", "sha384")],
            ["ed25519", make.public("ED25519"), b64encode(ed25519).decode()],
        ],
        "key_transports": {
            "rsa-pkcs1v15": make.transport(),
            **{
                f"rsa-oaep-{d}": make.transport("rsa_padding_mode:oaep", f"rsa_oaep_md:{d}", f"rsa_mgf1_md:{d}")
                for d in ("sha1", *_DIGESTS)
            },
        },
        "agreements": {name: make.agreement(name, name + "-peer") for name in ("P-256", "P-384", "X25519")},
        "key_derivations": {
            **{f"x963-{digest}": make.kdf("X963KDF", digest) for digest in ("sha1", *_DIGESTS)},
            **{f"hkdf-{digest}": make.kdf("HKDF", digest) for digest in _DIGESTS},
        },
        "key_derivation_info": _SHARED_INFO.hex(),
        "key_wraps": key_wraps,
        "wrapped_key": WRAPPED_KEY.hex(),
        "contents": {
            **{
                f"aes-{bits}-cbc": make.cipher(f"aes-{bits}-cbc", SECRET[: bits // 8], SECRET[16:], TEXT)
                for bits in (128, 192, 256)
            },
            **{
                name: {
                    "key": key,
                    "nonce": "cafebabefacedbaddecaf888",
                    "associated": "feedfacedeadbeeffeedfacedeadbeefabaddad2",
                    "plain": _GCM_PLAIN,
                    "encrypted": encrypted,
                    "tag": tag,
                }
                for name, (key, encrypted, tag) in _GCM.items()
            },
            "chacha20-poly1305": _CHACHA,
        },
    }


_DIGESTS = ("sha256", "sha384", "sha512")

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        json.dump(known_answers(Maker(Path(folder))), sys.stdout, indent=1, sort_keys=True)
        sys.stdout.write("\n")
