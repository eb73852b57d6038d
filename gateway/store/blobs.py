"""Bytes kept under their SHA-256: certificates, and the revocation data of the evidence.

Each content is stored once, however many messages rest on it, and never changes. Two writers that bring the same
content at the same moment both succeed. What is read is checked against its digest: evidence that was damaged on the
disk must not be judged by.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Table, bindparam, select

from gateway.core.errors import NotFoundError, StoreError
from gateway.store.engines import insert_absent
from gateway.store.group_memory import memory_of
from gateway.store.prepared import Prepared

_CHUNK = 500
"""Digests asked for at once: databases bound the parameters of a statement."""
_FEW = (1, 2, 4, 8)
"""Up to so many digests are asked for by a statement that was prepared for their number."""


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of the bytes, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def absent(connection: Connection, table: Table, digests: Iterable[str]) -> list[str]:
    """Those of the digests under which nothing is stored, each once, in the order given."""
    memory = memory_of(connection)
    wanted = [digest for digest in dict.fromkeys(digests) if memory is None or not memory.knows(table, digest)]
    known: set[str] = set()
    for chunk in _chunks(wanted):
        known.update(_known(connection, table, chunk))
    if memory is not None:
        memory.saw(table, known)
    return [digest for digest in wanted if digest not in known]


def keep(connection: Connection, table: Table, ders: Mapping[str, bytes]) -> None:
    """Store what is not there yet; the keys are the digests of the values."""
    missing = absent(connection, table, ders)
    if missing:
        statement = insert_absent(connection, table)
        connection.execute(statement, [{"sha256": digest, "der": ders[digest]} for digest in missing])


def fetch(connection: Connection, table: Table, sha256: str) -> bytes:
    """Return the bytes.

    Raises:
        NotFoundError: there are none. StoreError: they do not match their digest any more.
    """
    found = connection.scalar(select(table.c.der).where(table.c.sha256 == sha256))
    if found is None:
        raise NotFoundError(f"there is no such {table.name.replace('_', ' ')}")
    return checked(table, sha256, bytes(found))


def fetch_many(connection: Connection, table: Table, digests: Iterable[str]) -> dict[str, bytes]:
    """Return the bytes by digest.

    Raises:
        NotFoundError: one is not there. StoreError: one does not match its digest any more.
    """
    wanted = list(dict.fromkeys(digests))
    found: dict[str, bytes] = {}
    for chunk in _chunks(wanted):
        for row in connection.execute(select(table).where(table.c.sha256.in_(chunk))):
            found[row.sha256] = checked(table, row.sha256, bytes(row.der))
    if len(found) < len(wanted):
        raise NotFoundError(f"there is no such {table.name.replace('_', ' ')}")
    return found


def checked(table: Table, sha256: str, der: bytes) -> bytes:
    """Return the bytes when they are those of the digest. Raises StoreError.

    Nothing of these tables may be used without it: a row can have been planted under the digest of what is to come.
    """
    if sha256_hex(der) != sha256:
        raise StoreError(f"a stored {table.name.replace('_', ' ')} does not match its digest")
    return der


def _known(connection: Connection, table: Table, digests: list[str]) -> Iterable[str]:
    """Those of the digests that are there."""
    size = next((size for size in _FEW if size >= len(digests)), None)
    if size is None:
        return connection.execute(_look(table), {"digests": digests}).scalars()
    # A chain has two or three certificates. The same one again fills the places that are left.
    asked = digests + digests[:1] * (size - len(digests))
    return _look_for_few(table, size).scalars(connection, **{f"of_{n}": digest for n, digest in enumerate(asked)})


@cache
def _look(table: Table) -> Select[Any]:
    return select(table.c.sha256).where(table.c.sha256.in_(bindparam("digests", expanding=True)))


@cache
def _look_for_few(table: Table, size: int) -> Prepared:
    places: list[ColumnElement[str]] = [bindparam(f"of_{n}") for n in range(size)]
    return Prepared(select(table.c.sha256).where(table.c.sha256.in_(places)))


def _chunks(digests: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(digests), _CHUNK):
        yield digests[start : start + _CHUNK]
