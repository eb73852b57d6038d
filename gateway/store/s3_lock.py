"""Proves that the bucket locks what is put into it, before any mail is trusted to it.

A server may know the words of Object Lock and not do what they say; some let a retention be shortened, some remove what
is locked. And a refusal proves nothing where the role may not do the thing at all. So each refusal is asked for next to
something of the same kind that must be granted:

1. versions are kept, Object Lock is on, and the bucket locks by default;
2. a canary that asks for no retention is locked by that default;
3. a canary of one day, in COMPLIANCE mode, keeps mode and end as asked for;
4. a delete marker over it can be removed (we may remove versions here), and the canary itself cannot;
5. its retention can be lengthened (we may set retentions here), and not shortened.

It writes two small objects below ``canary/`` each time. They are left for their retention to end: the second after a
day, the first after the default of the bucket.

Failure modes: ConfigurationError with the reason and the mend: the gateway must not run on this bucket.
StoreUnavailableError: the server does not answer now, so nothing is known; try again.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from gateway.core.errors import ConfigurationError
from gateway.observability.log import get_log
from gateway.store.s3_bucket import (
    COMPLIANCE,
    Bucket,
    BucketRefusedError,
    NoCredentialsFoundError,
    ObjectGoneError,
    retain_until,
)

CANARY = "canary/"
_CANARY_LIFE = timedelta(days=1)
_LONGER = timedelta(minutes=10)
_CONTENT = b"canary of direct-gateway: proves that this bucket locks\n"
_CREDENTIALS = frozenset(
    {"AccessDenied", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch", "403"}
)
DEFAULT_MEND = (
    "aws s3api put-object-lock-configuration --bucket BUCKET --object-lock-configuration "
    '\'{"ObjectLockEnabled":"Enabled","Rule":{"DefaultRetention":{"Mode":"COMPLIANCE","Days":1}}}\''
)

log = get_log("store")


def prove_lock(bucket: Bucket, now: datetime, *, allow_shortening: bool) -> None:
    """See that nobody can remove what is put into the bucket before its time.

    Args:
        bucket: where the bodies are to lie.
        now: the time.
        allow_shortening: go on when the server lets a retention be shortened (test servers do).

    Raises:
        ConfigurationError: it does not lock, or we may not try; the text says what to do.
        StoreUnavailableError: it does not answer now.
    """
    with _needing("s3:GetBucketVersioning, s3:GetBucketObjectLockConfiguration"):
        _require_configuration(bucket)
    with _needing("s3:PutObject, s3:PutObjectRetention, s3:GetObject, s3:GetObjectVersion, s3:GetObjectRetention"):
        _require_default(bucket)
        until = retain_until(now, _CANARY_LIFE)
        name, version = _put(bucket, until)
        kept = bucket.retention(name, version)
        if kept.mode != COMPLIANCE or kept.until != until:
            raise _unlocked("an object has not the retention it asked for (or s3:GetObjectRetention is missing)")
    _require_undeletable(bucket, name, version)
    _require_unshortenable(bucket, name, version, until, now, allow_shortening=allow_shortening)
    log.info("bucket_lock_proven")


def _require_configuration(bucket: Bucket) -> None:
    if not bucket.versioned():
        raise ConfigurationError(
            "s3.bucket: the bucket keeps no versions, so nothing in it can be locked; make one with Object Lock: "
            "aws s3api create-bucket --object-lock-enabled-for-bucket (docs/s3.md)"
        )
    default = bucket.default_retention()
    if not default.locked:
        raise ConfigurationError(
            "s3.bucket: Object Lock is off in the bucket; make one with it: "
            "aws s3api create-bucket --object-lock-enabled-for-bucket (docs/s3.md)"
        )
    if default.mode != COMPLIANCE:
        what = f"in {default.mode} mode" if default.mode else "nothing"
        raise ConfigurationError(
            f"s3.bucket: the bucket locks {what} by default, and must lock in COMPLIANCE mode: {DEFAULT_MEND}"
        )


def _require_default(bucket: Bucket) -> None:
    """A plain put must be locked as well: then no mistake of anybody's leaves an object that can be removed."""
    if bucket.retention(*_put(bucket, None)).mode != COMPLIANCE:
        raise _unlocked("it has a default retention, and does not lock an object that asks for none")


def _require_undeletable(bucket: Bucket, name: str, version: str) -> None:
    with _needing("s3:DeleteObject and s3:DeleteObjectVersion below PREFIXcanary/"):
        # We may remove versions here: otherwise a refusal below would prove nothing about the lock.
        bucket.delete(name, bucket.delete(name, None))
    if _granted(lambda: bucket.delete(name, version)):
        raise _unlocked("it removed an object before the end of its retention")
    try:
        bucket.retention(name, version)
    except ObjectGoneError as exc:
        raise _unlocked("it refused to remove an object, and the object is gone") from exc


def _require_unshortenable(
    bucket: Bucket, name: str, version: str, until: datetime, now: datetime, *, allow_shortening: bool
) -> None:
    with _needing("s3:PutObjectRetention"):
        bucket.retain(name, version, until + _LONGER)
    if not _granted(lambda: bucket.retain(name, version, now.replace(microsecond=0) + _LONGER)):
        return
    if not allow_shortening:
        raise _unlocked(
            "it lets the retention of an object be shortened, after which the object can be removed "
            "(for a test server only: s3.allow_retention_shortening = true)"
        )
    log.warning("bucket_retention_can_be_shortened")


def _put(bucket: Bucket, until: datetime | None) -> tuple[str, str]:
    name = f"{bucket.prefix}{CANARY}{secrets.token_hex(16)}"
    return name, bucket.put(name, _CONTENT, until)


def _granted(ask: Callable[[], object]) -> bool:
    try:
        ask()
    except BucketRefusedError:
        return False
    return True


@contextmanager
def _needing(rights: str) -> Iterator[None]:
    """At the start a refusal is a mistake in the settings, and no passing fault."""
    try:
        yield
    except NoCredentialsFoundError as exc:
        raise ConfigurationError(str(exc)) from exc
    except BucketRefusedError as exc:
        if exc.code in {"NoSuchBucket", "404"}:
            raise ConfigurationError("s3.bucket: there is no such bucket; docs/s3.md tells how to make it") from exc
        if exc.code == "NoVersion":
            raise _unlocked("it keeps no versions") from exc
        allow = f"see that the credentials are right and may do {rights}"
        mend = allow if exc.code in _CREDENTIALS else "see docs/s3.md"
        raise ConfigurationError(f"s3.bucket: {exc}; {mend}") from exc


def _unlocked(why: str) -> ConfigurationError:
    return ConfigurationError(
        f"s3.bucket: this server does not protect mail: {why}. Use a server and a bucket with a working Object Lock "
        f'(docs/s3.md), or store.bodies = "database"'
    )
