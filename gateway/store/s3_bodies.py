"""Bodies in a bucket with Object Lock: sealed, put there, and only then named by a row.

Crash story of a message that comes in: its parts are sealed under a key that exists in memory only; the object is put,
with its retention; then the store's one writer commits the row that names the object, with its digest, and the wrapped
key. Row never precedes body. Killed, or the commit refused, in between: an object that no row names and that nobody can
read, because its key was never kept. It is never taken for a message; ``direct-gateway store orphans`` lists it, and it
stays until its retention ends. The sender, who saw no 250, comes again.

The name of an object is the message id, the kind and a random part, so nothing is ever put in the place of another. A
put whose answer was lost is done once more under another name, because what is there under the first cannot be told
from somebody else's.

Failure modes: StoreUnavailableError while the bucket is away or refuses (451 for a sender, a later attempt for a job).
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

from sqlalchemy import Engine

from gateway.core.errors import ConfigurationError, StoreUnavailableError
from gateway.core.message import PART_BYTES, Body
from gateway.observability.clock import SystemClock
from gateway.ports import BodySealer, PlacedBody
from gateway.settings import S3Settings
from gateway.store.body_objects import packed, require_bucket
from gateway.store.body_parts import Kind
from gateway.store.s3_bucket import Bucket, NameTakenError, ObjectGoneError, retain_until
from gateway.store.s3_lock import prove_lock
from gateway.store.sealed_bodies import sealed_parts

_NAMES_TRIED = 3
_LARGE_AT_ONCE = 2
"""A sealed body is in memory while it is sent. Small ones are sent many at a time, those above a part only two."""


class S3Bodies:
    """Puts sealed bodies into the bucket and reads them. Safe to use from several threads."""

    def __init__(self, bucket: Bucket, settings: S3Settings, sealer: BodySealer, *, places: bool) -> None:
        """``places``: new bodies go to the bucket. False: only what is there is read."""
        self.bucket = bucket
        self.places = places
        self._sealer = sealer
        self._retention = timedelta(days=settings.retention_days)
        self._small = ThreadPoolExecutor(settings.uploads, thread_name_prefix="s3-put")
        self._large = ThreadPoolExecutor(_LARGE_AT_ONCE, thread_name_prefix="s3-put-large")

    async def place(self, message_id: str, kind: Kind, key: bytes, body: Body) -> PlacedBody:
        """Seal a body under the key of its message and put it; returns when it is durable and locked.

        Raises StoreUnavailableError: it is not known to be there; nothing may name it.
        """
        executor = self._small if body.size_bytes <= PART_BYTES else self._large
        return await asyncio.get_running_loop().run_in_executor(executor, self.put, message_id, kind, key, body)

    def put(self, message_id: str, kind: Kind, key: bytes, body: Body) -> PlacedBody:
        """As :meth:`place`, for callers without an event loop."""
        data = packed(sealed_parts(self._sealer, key, message_id, kind, body.parts()))
        until = retain_until(SystemClock().now(), self._retention)
        name, version = self._put_under_a_new_name(message_id, kind, data, until)
        return PlacedBody(
            message_id=message_id,
            kind=kind.value,
            body_sha256=body.sha256,
            key=key,
            name=name,
            version=version,
            sha256=hashlib.sha256(data).hexdigest(),
            size_bytes=len(data),
            retain_until=until,
        )

    def _put_under_a_new_name(self, message_id: str, kind: Kind, data: bytes, until: datetime) -> tuple[str, str]:
        for _ in range(_NAMES_TRIED):
            name = f"{self.bucket.prefix}{message_id}/{kind.value}/{secrets.token_hex(16)}"
            try:
                return name, self.bucket.put(name, data, until)
            except NameTakenError:
                continue
        raise StoreUnavailableError("the bucket says of every new name that it is taken")

    def fetch(self, name: str, version: str, most_bytes: int) -> bytes | None:
        """See :class:`gateway.store.body_objects.Objects`."""
        try:
            return self.bucket.get(name, version, most_bytes)
        except ObjectGoneError:
            return None

    def close(self) -> None:
        """Let what is being sent end, and close every connection."""
        self._small.shutdown(wait=True)
        self._large.shutdown(wait=True)
        self.bucket.close()


def prove_bucket(settings: S3Settings) -> None:
    """Prove the lock of the bucket of the settings, for a check on request. Raises as :func:`prove_lock`."""
    bucket = Bucket(settings)
    try:
        prove_lock(bucket, SystemClock().now(), allow_shortening=settings.allow_retention_shortening)
    finally:
        bucket.close()


def open_bodies(
    settings: S3Settings, sealer: BodySealer, reader: Engine, *, places: bool, prove: bool
) -> S3Bodies | None:
    """The bodies in the bucket of the settings; None when they name no bucket.

    ``prove``: see first that the bucket locks, when new bodies go there, and that there is one when old ones lie there.

    Raises:
        ConfigurationError: boto3 is not installed, the credentials cannot be used, the bucket does not lock, or there
            is none although mail lies in one.
        StoreUnavailableError: the bucket is to be proven, and does not answer now.
    """
    if not settings.bucket:
        if places:
            raise ConfigurationError('store.bodies is "s3": s3.bucket must name the bucket; see docs/s3.md')
        if prove:
            require_bucket(reader)
        return None
    bucket = Bucket(settings)
    try:
        if prove and places:
            prove_lock(bucket, SystemClock().now(), allow_shortening=settings.allow_retention_shortening)
    except BaseException:
        bucket.close()
        raise
    return S3Bodies(bucket, settings, sealer, places=places)
