"""F23: the worst messages that we know, each judged by ``message verify`` in a process of its own: 5 s and 256 MB.

CPU time and peak of memory are what the kernel counted for the whole process, interpreter and imports included.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.sta.agent import MAX_MESSAGE_BYTES
from tests.smime.clinic import SECRET, Clinic
from tests.support.der_forge import integer, octets, oid, seq, tlv
from tests.support.direct_messages import outer_message, wrapped_entity
from tests.support.forge_envelopes import cbc, v15
from tests.support.forge_signatures import Signed, Signing
from tests.unit.sta.trust_world import NOW, RCPT, SENDER

SECONDS = 5.0
MEGABYTES = 256.0
COMMAND = (sys.executable, "-c", "import sys; from gateway.cli.main import main; sys.exit(main())")
LAUNCHER = """
import json, os, sys
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, used = os.wait4(child, 0)
print(json.dumps([os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, used.ru_maxrss]))
"""
"""Starts the command from a small process: the kernel counts the memory of whoever forks to the child as well."""
_FIELDS = f"From: {SENDER}\r\nTo: {RCPT}\r\nMIME-Version: 1.0\r\n".encode()


def judged(keys: Path, anchors: Path, raw: bytes) -> dict[str, object]:
    """The verdict on the message, which must come within the limits."""
    with tempfile.TemporaryDirectory() as folder:
        message = Path(folder) / "message.eml"
        message.write_bytes(raw)
        words = [*COMMAND, "message", "verify", "--json", "--at", NOW.isoformat()]
        words += ["--credentials", str(keys), "--anchors", str(anchors), str(message)]
        done = subprocess.run(
            [sys.executable, "-S", "-c", LAUNCHER, *words], capture_output=True, check=True, timeout=60
        )
    verdict, used = done.stdout.decode().splitlines()
    status, seconds, kilobytes = json.loads(used)
    assert status in {0, 1}, done.stderr[-2_000:]
    assert seconds < SECONDS, verdict[:300]
    assert kilobytes / 1024 < MEGABYTES, verdict[:300]
    found: dict[str, object] = json.loads(verdict)
    assert "could not be examined" not in str(found["detail"])
    return found


@pytest.fixture(scope="module")
def folders(clinic: Clinic, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("clinic")
    clinic.recipient().write(root / "keys", "ann")
    (root / "anchors").mkdir()
    (root / "anchors" / "community.pem").write_bytes(clinic.world.community.identity.certificate_pem)
    return root / "keys", root / "anchors"


@pytest.fixture(scope="module")
def vector_folders(attacks: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("vectors")
    for name in ("keys", "anchors"):
        (root / name).mkdir()
    (root / "keys" / "rcpt.cert.pem").write_bytes((attacks / "rcpt.pem").read_bytes())
    (root / "keys" / "rcpt.key.pem").write_bytes((attacks / "rcpt.key").read_bytes())
    (root / "keys" / "rcpt.key.pem").chmod(0o600)
    (root / "anchors" / "ca.pem").write_bytes((attacks / "ca.pem").read_bytes())
    return root / "keys", root / "anchors"


def test_every_vector_that_is_made_to_exhaust(attacks: Path, vector_folders: tuple[Path, Path]) -> None:
    """All of a and c, the recipients of e16 and the layers of e17."""
    files = sorted(
        [*attacks.glob("a*.der"), *attacks.glob("a*.eml"), *attacks.glob("c*.eml"), *attacks.glob("e1[67]*")]
    )
    assert len(files) == 12
    for file in files:
        raw = file.read_bytes()
        head = b"From: a@direct.example.org\r\nContent-Type: application/pkcs7-mime\r\n"
        head += b"Content-Transfer-Encoding: base64\r\n\r\n"
        shape = head + base64.encodebytes(raw) if file.suffix == ".der" else raw
        assert judged(*vector_folders, shape)["verdict"] == "rejected", file.name


# --- made to the size of the largest message that is read at all ---


def big_and_valid(clinic: Clinic) -> bytes:
    attachment = os.urandom(25_000_000)
    inner = clinic.world.inner(attachment=None)
    head = inner[: inner.index(b"Content-Type")]
    body = b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    inner = head + body + base64.encodebytes(attachment).replace(b"\n", b"\r\n")
    return clinic.sealed(Signed(wrapped_entity(inner), [Signing(clinic.sender())]).entity())


def in_chunks(clinic: Clinic) -> bytes:
    """BER as the Java reference implementation sends it: 25 MB in chunks of 1000 bytes (asn1crypto needs 6 minutes)."""
    content = Signed(wrapped_entity(clinic.inner + b"x" * 25_000_000), [Signing(clinic.sender())]).entity()
    sealed = cbc(SECRET, content)
    pieces = b"".join(octets(sealed.content[at : at + 1_000]) for at in range(0, len(sealed.content), 1_000))
    info = b"\x30\x80" + oid("1.2.840.113549.1.7.1") + sealed.algorithm + b"\xa0\x80" + pieces + b"\0\0\0\0"
    body = b"\x30\x80" + integer(2) + tlv(0x31, v15(clinic.recipient(), SECRET)) + info + b"\0\0"
    der = b"\x30\x80" + oid("1.2.840.113549.1.7.3") + b"\xa0\x80" + body + b"\0\0\0\0"
    return outer_message(der, SENDER, [RCPT])


def crumbs(clinic: Clinic) -> bytes:
    del clinic
    pieces = octets(b"x") * 10_000_000
    info = seq(oid("1.2.840.113549.1.7.1"), seq(oid("2.16.840.1.101.3.4.1.42"), octets(bytes(16))), tlv(0xA0, pieces))
    der = seq(oid("1.2.840.113549.1.7.3"), tlv(0xA0, seq(integer(2), tlv(0x31), info)))
    return outer_message(der, SENDER, [RCPT])


def zeros(clinic: Clinic) -> bytes:
    del clinic
    return bytes(60_000_000)


def beyond_the_limit(clinic: Clinic) -> bytes:
    del clinic
    return _FIELDS + b"\r\n" + b"x" * MAX_MESSAGE_BYTES


def one_endless_header(clinic: Clinic) -> bytes:
    del clinic
    return _FIELDS + b"X: " + b"y" * 60_000_000


def headers_without_end(clinic: Clinic) -> bytes:
    del clinic
    return b"X: y\r\n" * 10_000_000


def folded_without_end(clinic: Clinic) -> bytes:
    del clinic
    return b"X:" + b"\r\n " * 20_000_000


def boundaries(clinic: Clinic) -> bytes:
    del clinic
    return _FIELDS + b"Content-Type: multipart/signed; boundary=b\r\n\r\n" + b"--b\r\n\r\n" * 7_500_000


def near_boundaries(clinic: Clinic) -> bytes:
    del clinic
    head = b'Content-Type: multipart/signed; boundary="' + b"-" * 69 + b'"\r\n\r\n'
    return _FIELDS + head + (b"-" * 75 + b"\r\n") * 770_000


def blanks_in_base64(clinic: Clinic) -> bytes:
    del clinic
    head = b"Content-Type: application/pkcs7-mime\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    return _FIELDS + head + b"M\r\n" * 20_000_000


def quoted_printable(clinic: Clinic) -> bytes:
    del clinic
    head = b"Content-Type: application/pkcs7-mime\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    return _FIELDS + head + b"=30=80" * 10_000_000


def indefinite_tower(clinic: Clinic) -> bytes:
    del clinic
    return outer_message(b"\x30\x80" * 20_000_000, SENDER, [RCPT])


def parts_inside(clinic: Clinic) -> bytes:
    body = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\n" * 3_000_000
    return clinic.sealed(Signed(wrapped_entity(_FIELDS + body), [Signing(clinic.sender())]).entity())


def addresses_inside(clinic: Clinic) -> bytes:
    many = b"To: " + b"a@b.example,\r\n " * 1_900 + RCPT.encode()
    inner = f"From: {SENDER}\r\n".encode() + many + b"\r\n" + b"Content-Type: text/plain\r\n\r\n" + b"x" * 20_000_000
    return clinic.sealed(Signed(wrapped_entity(inner), [Signing(clinic.sender())]).entity())


WORST: list[tuple[Callable[[Clinic], bytes], str]] = [
    (big_and_valid, "ok"),
    (in_chunks, "ok"),
    (crumbs, "resource_limit"),
    (zeros, "resource_limit"),
    (beyond_the_limit, "resource_limit"),
    (one_endless_header, "resource_limit"),
    (headers_without_end, "resource_limit"),
    (folded_without_end, "resource_limit"),
    (boundaries, "resource_limit"),
    (near_boundaries, "malformed"),
    (blanks_in_base64, "malformed"),
    (quoted_printable, "resource_limit"),
    (indefinite_tower, "resource_limit"),
    (parts_inside, "resource_limit"),
    (addresses_inside, "ok"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("make", "reason"), WORST, ids=[make.__name__ for make, _ in WORST])
def test_the_worst_of_its_size(
    clinic: Clinic, folders: tuple[Path, Path], make: Callable[[Clinic], bytes], reason: str
) -> None:
    assert judged(*folders, make(clinic))["reason"] == reason
