"""Genuine Direct messages, each one different, made before the clock runs: signed, encrypted, ready for the wire.

They lie one after another in a file, which a sending process maps into its memory. Making them takes CPU of the order
of receiving them, so every core makes some. The same message number always has the same inner message, so whoever
fetches it can compare it byte for byte.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.bench.making import inner_message
from tests.bench.world import SENDER, SIZES, BenchError
from tests.support.direct_messages import CryptographyStack, direct_message
from tests.support.pki import Identity

_BATCH = 50


def message_id_of(size: str, number: int) -> str:
    """The Message-ID of one message, inside and outside."""
    return f"<{size}-{number}@bench.example>"


def inner_of(size: str, number: int, recipient: str) -> bytes:
    """What the recipient must find in the inbox."""
    return inner_message(SIZES[size], recipient=recipient, message_id=message_id_of(size, number), seed=number + 1)


def read_ends(file: Path) -> array[int]:
    """Where each message of a pool ends."""
    ends = array("Q")
    ends.frombytes(ends_file(file).read_bytes())
    return ends


def ends_file(file: Path) -> Path:
    """Stands beside the messages."""
    return file.with_suffix(".ends")


class MailPool:
    """The messages of one size."""

    def __init__(self, folder: Path, size: str, signer: Identity, recipient: Identity, address: str) -> None:
        """``address`` of the recipient, whose certificate is ``recipient``."""
        self.file = folder / f"mail-{size}.pool"
        self.size = size
        self._keys = (signer.certificate_pem, signer.key_pem, recipient.certificate_pem)
        self._address = address
        self._ends = array("Q")
        self.file.write_bytes(b"")

    def __len__(self) -> int:
        return len(self._ends)

    @property
    def mean_bytes(self) -> float:
        """Of a message as it travels."""
        return self._ends[-1] / len(self._ends)

    def ensure(self, count: int, say: Callable[[str], None]) -> None:
        """Make messages until there are so many."""
        if count <= len(self):
            return
        say(f"making {count - len(self)} messages of {self.size}")
        starts = range(len(self), count, _BATCH)
        keys = _Keys(self._address, *self._keys)
        with ProcessPoolExecutor(os.cpu_count()) as workers, self.file.open("ab") as out:
            parts = [range(start, min(count, start + _BATCH)) for start in starts]
            for made in workers.map(partial(_make, keys, self.size), parts):
                for raw in made:
                    out.write(raw)
                    self._ends.append(out.tell())
        ends_file(self.file).write_bytes(self._ends.tobytes())

    def messages(self, count: int) -> Iterator[bytes]:
        """The first of them."""
        with self.file.open("rb") as file:
            start = 0
            for end in self._ends[:count]:
                yield file.read(end - start)
                start = end


@dataclass(frozen=True)
class _Keys:
    """What a process needs to make messages, as PEM."""

    address: str
    certificate: bytes
    key: bytes
    recipient: bytes


def _make(keys: _Keys, size: str, numbers: range) -> list[bytes]:
    private = load_pem_private_key(keys.key, None)
    signer = Identity(x509.load_pem_x509_certificate(keys.certificate), private)  # type: ignore[arg-type]
    # Only its certificate is used; the private key is the recipient's own.
    to = Identity(x509.load_pem_x509_certificate(keys.recipient), private)  # type: ignore[arg-type]
    address, made = keys.address, []
    for number in numbers:
        raw = direct_message(
            CryptographyStack(),
            inner_of(size, number, address),
            sender=SENDER,
            recipients=[address],
            signer=signer,
            to=[to],
            message_id=message_id_of(size, number),
        )
        if b"\n." in raw or not raw.endswith(b"\r\n"):
            raise BenchError("a message is not ready for the wire: it has a line that begins with a dot, or no end")
        made.append(raw)
    return made
