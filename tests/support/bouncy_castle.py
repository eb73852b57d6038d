"""Bouncy Castle as a message stack: compiles ``bouncycastle/MakeCMS.java`` once a run.

Needs a JDK and the jars of the Debian packages libbcmail-java, libbcpkix-java and libbcprov-java.
"""

from __future__ import annotations

import base64
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.support.pki import Identity

JARS = [Path("/usr/share/java") / f"bc{part}.jar" for part in ("mail", "pkix", "prov", "util")]
SOURCE = Path(__file__).parent / "bouncycastle" / "MakeCMS.java"


def missing() -> str | None:
    """What is missing to use this stack, or None."""
    if shutil.which("javac") is None:
        return "javac is not installed"
    absent = [jar.name for jar in JARS if not jar.exists()]
    return f"{', '.join(absent)} not installed" if absent else None


@cache
def _classes() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="bouncycastle-"))
    classpath = ":".join(map(str, JARS))
    subprocess.run(["javac", "-cp", classpath, "-d", str(folder), str(SOURCE)], check=True, timeout=120)
    return folder


def _make(arguments: Sequence[str], data: bytes, identities: Sequence[Identity], *, keyed: bool) -> bytes:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").write_bytes(data)
        files: list[str] = []
        for index, identity in enumerate(identities):
            certificate, key = identity.write(folder, f"i{index}")
            files += [str(certificate), str(key)] if keyed and index == 0 else [str(certificate)]
        command = ["java", "-cp", ":".join([str(_classes()), *map(str, JARS)]), "MakeCMS"]
        command += [arguments[0], str(folder / "in"), str(folder / "out"), *arguments[1:], *files]
        done = subprocess.run(command, capture_output=True, check=False, timeout=120)
        if done.returncode:
            raise RuntimeError(done.stderr.decode(errors="replace"))
        return (folder / "out").read_bytes()


@dataclass(frozen=True)
class BouncyCastleStack:
    """Bouncy Castle's CMS generators. Its own default encoding is BER."""

    name: str = "bouncycastle"
    encoding: str = "ber"
    opaque: bool = False
    signature: str = "SHA256withRSA"
    cipher: str = "aes256-cbc"
    transport: str = "v15"

    def sign(self, entity: bytes, signer: Identity, chain: Sequence[Identity] = ()) -> bytes:
        form = "opaque" if self.opaque else "detached"
        cms = _make(["sign", self.encoding, form, self.signature], entity, [signer, *chain], keyed=True)
        armoured = base64.encodebytes(cms).replace(b"\n", b"\r\n")
        if self.opaque:
            return (
                b'Content-Type: application/pkcs7-mime; smime-type=signed-data; name="smime.p7m"\r\n'
                b"Content-Transfer-Encoding: base64\r\n\r\n" + armoured
            )
        boundary = b"----=_Part_0_1234.5678"
        return (
            b'Content-Type: multipart/signed; protocol="application/pkcs7-signature"; micalg=sha-256; \r\n\tboundary="'
            + boundary
            + b'"\r\n\r\n--'
            + boundary
            + b"\r\n"
            + entity
            + b"\r\n--"
            + boundary
            + b"\r\nContent-Type: application/pkcs7-signature; name=smime.p7s; smime-type=signed-data\r\n"
            b'Content-Transfer-Encoding: base64\r\nContent-Disposition: attachment; filename="smime.p7s"\r\n'
            b"Content-Description: S/MIME Cryptographic Signature\r\n\r\n" + armoured + b"--" + boundary + b"--\r\n"
        )

    def encrypt(self, entity: bytes, recipients: Sequence[Identity]) -> bytes:
        return _make(["encrypt", self.encoding, self.cipher, self.transport], entity, recipients, keyed=False)
