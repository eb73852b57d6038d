"""A bucket of an S3 server: the one module that speaks to boto3.

Guarantees

* Every object is put with a digest that the server checks, and only where no object of that name is
  (``If-None-Match: *``); its retention, where one is asked for, is COMPLIANCE: nobody can end it, the owner included.
* An object is read by its version: what somebody puts over it, or a delete marker on top of it, changes nothing.
* Every wait has an end. A server that was away is asked by one caller at a time until it answers; all others fail at
  once, so that neither the reader threads nor the senders pile up behind it.
* No text of the library leaves: it may show names and addresses. What leaves is the operation and the code.

Failure modes: StoreUnavailableError for everything that says nothing about the object (away, slow, overloaded, denied:
``BucketRefusedError``); ObjectGoneError and NameTakenError for what does. Credentials come from the file that the
settings name, or from the environment or the role of the machine; a file is read when the gateway starts.
"""

from __future__ import annotations

import base64
import configparser
import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gateway.core.errors import ConfigurationError, StoreError, StoreUnavailableError
from gateway.observability.log import get_log
from gateway.settings import S3Settings

COMPLIANCE = "COMPLIANCE"
EXTRA = "s3.bucket: boto3 is not installed; run, in the checkout: .venv/bin/pip install -e '.[s3]'"
_PAUSE_SECONDS = 1.0
"""Between two looks at a server that was away."""
_SERVER_FAULT = 500
_GONE = frozenset({"NoSuchKey", "NoSuchVersion"})
_READS = frozenset({"get_object", "head_object"})
_HIDDEN = frozenset({"404", "405", "MethodNotAllowed"})
"""What a read of a version is told that is not there, or is a delete marker, without a code that says so."""
_TAKEN = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})
_BUSY = frozenset({"SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "RequestLimitExceeded"})

log = get_log("store")


class BucketRefusedError(StoreUnavailableError):
    """The server answers, and does not do what it was asked to: a right, a setting or a credential is missing.

    ``code`` is the server's word for it.
    """

    def __init__(self, operation: str, code: str) -> None:
        super().__init__(f"the bucket refuses {operation} ({code})")
        self.code = code


class NoCredentialsFoundError(BucketRefusedError):
    """There is nothing to show to the server. At the start a mistake in the settings; a role may come back later."""

    def __init__(self, operation: str) -> None:
        super().__init__(operation, "NoCredentials")
        told = (
            "s3.credentials_file: there are no credentials for the bucket; name a file with [default], "
            "aws_access_key_id and aws_secret_access_key, or give them by the environment or a role of the machine"
        )
        self.args = (told,)


class ObjectGoneError(StoreError):
    """There is no such version of the object."""


class NameTakenError(StoreError):
    """There is an object of that name."""


@dataclass(frozen=True, slots=True)
class Retention:
    """What protects a version of an object."""

    mode: str
    """COMPLIANCE or GOVERNANCE; empty when nothing does."""
    until: datetime | None


@dataclass(frozen=True, slots=True)
class DefaultRetention:
    """What the bucket gives to an object that asks for none. ``mode`` is empty when it gives nothing."""

    locked: bool
    """Whether Object Lock is on at all."""
    mode: str


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """One version of an object, as the bucket lists it."""

    name: str
    version: str
    size_bytes: int
    modified_at: datetime


class Bucket:
    """The bucket of the settings. Safe to use from several threads."""

    def __init__(self, settings: S3Settings) -> None:
        """Connects to nothing yet.

        Raises:
            ConfigurationError: boto3 is not installed, or the file of credentials cannot be used.
        """
        self._settings = settings
        self._guard = _AwayGuard()
        self._where = _where(settings)
        self._client = _client(settings)

    @property
    def prefix(self) -> str:
        """What the names of all objects of ours begin with."""
        return self._settings.prefix

    @property
    def away(self) -> bool:
        """Whether the server did not answer when it was asked last."""
        return self._guard.away

    def put(self, name: str, data: bytes, until: datetime | None) -> str:
        """Put a new object that is locked until then (whole seconds), or as the bucket does by itself; its version.

        Raises:
            NameTakenError: there is an object of that name, which stays as it is.
            StoreUnavailableError: it is not known to be there.
        """
        digest = base64.b64encode(hashlib.sha256(data).digest()).decode("ascii")
        asked: dict[str, Any] = {
            "Key": name,
            "Body": data,
            "IfNoneMatch": "*",
            "ContentType": "application/octet-stream",
            "ChecksumSHA256": digest,
            # Against damage on the way, for servers that know no other digest; it protects nothing else.
            "ContentMD5": base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode("ascii"),
        }
        if until is not None:
            asked |= {"ObjectLockMode": COMPLIANCE, "ObjectLockRetainUntilDate": until}
        answer = self._ask("put_object", **asked)
        version = answer.get("VersionId")
        if not version or version == "null" or answer.get("ChecksumSHA256", digest) != digest:
            # Without versions nothing can be locked; with another digest it is not our object that is there.
            raise BucketRefusedError("put_object", "NoVersion" if not version or version == "null" else "OtherDigest")
        return str(version)

    def get(self, name: str, version: str, most_bytes: int) -> bytes:
        """The bytes of a version, of which no more than ``most_bytes`` are read.

        Raises:
            ObjectGoneError: it is not there. StoreUnavailableError: it cannot be had now.
        """
        with self._asking("get_object"):
            answer = self._client.get_object(Bucket=self._settings.bucket, Key=name, VersionId=version)
            with answer["Body"] as stream:
                return bytes(stream.read(most_bytes))

    def retention(self, name: str, version: str) -> Retention:
        """What protects a version. Raises as :meth:`get`."""
        answer = self._ask("head_object", Key=name, VersionId=version)
        until = answer.get("ObjectLockRetainUntilDate")
        return Retention(str(answer.get("ObjectLockMode", "")), until.astimezone(UTC) if until is not None else None)

    def retain(self, name: str, version: str, until: datetime) -> None:
        """Ask for another end of the retention. Raises StoreUnavailableError when that is refused."""
        self._ask("put_object_retention", Key=name, VersionId=version, Retention={
            "Mode": COMPLIANCE, "RetainUntilDate": until,
        })  # fmt: skip

    def delete(self, name: str, version: str | None) -> str:
        """Remove a version; without one, hide the object behind a delete marker, whose version is returned.

        Raises StoreUnavailableError when that is refused.
        """
        asked = {} if version is None else {"VersionId": version}
        return str(self._ask("delete_object", Key=name, **asked).get("VersionId", ""))

    def versioned(self) -> bool:
        """Whether the bucket keeps versions. Raises StoreUnavailableError."""
        return self._ask("get_bucket_versioning").get("Status") == "Enabled"

    def default_retention(self) -> DefaultRetention:
        """What the bucket does with an object that asks for no retention. Raises StoreUnavailableError."""
        try:
            answer = self._ask("get_object_lock_configuration").get("ObjectLockConfiguration", {})
        except BucketRefusedError as exc:
            if exc.code == "ObjectLockConfigurationNotFoundError":
                return DefaultRetention(locked=False, mode="")
            raise
        mode = answer.get("Rule", {}).get("DefaultRetention", {}).get("Mode", "")
        return DefaultRetention(locked=answer.get("ObjectLockEnabled") == "Enabled", mode=str(mode))

    def versions(self) -> Iterator[list[StoredVersion]]:
        """Every version of every object below the prefix, in pages, in the order of their names."""
        marks: dict[str, str] = {}
        while True:
            answer = self._ask("list_object_versions", Prefix=self.prefix, **marks)
            yield [
                StoredVersion(str(one["Key"]), str(one["VersionId"]), int(one["Size"]), one["LastModified"])
                for one in answer.get("Versions", [])
            ]
            if not answer.get("IsTruncated"):
                return
            marks = {"KeyMarker": answer["NextKeyMarker"], "VersionIdMarker": answer["NextVersionIdMarker"]}

    def close(self) -> None:
        """Close every connection."""
        self._client.close()

    def _ask(self, operation: str, **asked: Any) -> dict[str, Any]:
        with self._asking(operation):
            answer: dict[str, Any] = getattr(self._client, operation)(Bucket=self._settings.bucket, **asked)
            return answer

    @contextmanager
    def _asking(self, operation: str) -> Iterator[None]:
        """Turn what the library raises into our errors, and remember whether the server answers."""
        from botocore.exceptions import (  # noqa: PLC0415 - an extra
            BotoCoreError,
            ClientError,
            CredentialRetrievalError,
            NoCredentialsError,
            PartialCredentialsError,
        )

        self._guard.begin()
        answered = False
        try:
            yield
            answered = True
        except ClientError as exc:
            error = _told(operation, exc.response, self._where)
            answered = not isinstance(error, StoreUnavailableError) or isinstance(error, BucketRefusedError)
            raise error from exc
        except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError) as exc:
            # Nobody was asked: that says nothing about the server.
            answered = not self._guard.away
            raise NoCredentialsFoundError(operation) from exc
        except (BotoCoreError, OSError) as exc:
            raise _away(operation, type(exc).__name__, self._where) from exc
        finally:
            self._guard.end(answered=answered)


def _where(settings: S3Settings) -> tuple[str, str]:
    """The server, and the setting that names it, for people."""
    if settings.endpoint_url:
        return urlsplit(settings.endpoint_url).netloc.rpartition("@")[2], "s3.endpoint_url"
    return "Amazon S3", "s3.region"


def _away(operation: str, code: str, where: tuple[str, str]) -> StoreUnavailableError:
    host, setting = where
    return StoreUnavailableError(f"the bucket at {host} does not answer ({operation}, {code}); see {setting}")


def _told(operation: str, response: Any, where: tuple[str, str]) -> StoreError:
    code = str(response.get("Error", {}).get("Code", ""))[:60]
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", _SERVER_FAULT)
    if code in _TAKEN or (operation == "put_object" and code == "412"):
        return NameTakenError("the bucket has an object of that name")
    if code in _GONE or (operation in _READS and code in _HIDDEN):
        return ObjectGoneError("the bucket has no such object")
    if status >= _SERVER_FAULT or code in _BUSY:
        return _away(operation, code, where)
    return BucketRefusedError(operation, code)


def retain_until(now: datetime, retention: timedelta) -> datetime:
    """The end of a retention, in whole seconds: not every server keeps their fractions."""
    return (now + retention + timedelta(seconds=1)).replace(microsecond=0)


class _AwayGuard:
    """Lets one caller at a time ask a server that was away, and sends the others back at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asking = False
        self._again_at = 0.0
        self.away = False

    def begin(self) -> None:
        with self._lock:
            if not self.away:
                return
            if self._asking or time.monotonic() < self._again_at:
                raise StoreUnavailableError("the bucket did not answer a moment ago")
            self._asking = True

    def end(self, *, answered: bool) -> None:
        with self._lock:
            if answered == self.away:
                (log.info if answered else log.error)("bucket_is_back" if answered else "bucket_is_away")
            self.away = not answered
            self._asking = False
            self._again_at = time.monotonic() + _PAUSE_SECONDS


def _client(settings: S3Settings) -> Any:
    try:
        import boto3  # noqa: PLC0415 - an extra: who keeps bodies in the database need not have it
        from botocore.config import Config  # noqa: PLC0415
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415
    except ImportError:
        raise ConfigurationError(EXTRA) from None
    chosen = Config(
        connect_timeout=settings.connect_timeout_seconds,
        read_timeout=settings.read_timeout_seconds,
        retries={"total_max_attempts": settings.max_attempts, "mode": "standard"},
        max_pool_connections=settings.uploads + 8,
        # The digest of our own covers the sealed object from the row to the reader.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path" if settings.endpoint_url else "auto"},
    )
    try:
        session = boto3.Session(**_credentials(settings.credentials_file))
        return session.client(
            "s3",
            endpoint_url=settings.endpoint_url or None,
            region_name=settings.region or session.region_name or "us-east-1",
            verify=str(settings.ca_file) if settings.ca_file is not None else None,
            config=chosen,
        )
    except (BotoCoreError, ValueError, OSError) as exc:
        raise ConfigurationError(f"[s3]: boto3 does not take these settings ({type(exc).__name__})") from exc


def _credentials(path: Path | None) -> dict[str, str]:
    """What the file holds, and nothing else: a file that is named is not completed from elsewhere."""
    if path is None:
        return {}
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
        section = parser["default"]
        found = {"aws_access_key_id": section["aws_access_key_id"]}
        found["aws_secret_access_key"] = section["aws_secret_access_key"]
    except OSError as exc:
        raise ConfigurationError(f"s3.credentials_file: cannot read {path}: {exc.strerror}") from None
    except (configparser.Error, KeyError, UnicodeDecodeError):
        # Not with its cause: the parser's text repeats the line, which may be the secret.
        raise ConfigurationError(
            f"s3.credentials_file: {path} must hold [default] with aws_access_key_id and aws_secret_access_key"
        ) from None
    token = section.get("aws_session_token")
    return found | ({"aws_session_token": token} if token else {})
