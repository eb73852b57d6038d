"""The bucket of bodies: its lock is proven, and a body that is missing, altered or out of reach is never served."""

from __future__ import annotations

import ast
import builtins
import contextlib
import logging
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import gateway
from gateway.core.errors import ConfigurationError, StoreError, StoreUnavailableError
from gateway.core.message import MemoryBody
from gateway.observability.clock import SystemClock
from gateway.settings import S3Settings, from_document
from gateway.store import s3_bucket, s3_orphans
from gateway.store.body_objects import packed, unpacked
from gateway.store.ids import new_id
from gateway.store.s3_bucket import Bucket, BucketRefusedError, NameTakenError, ObjectGoneError, retain_until
from gateway.store.s3_lock import prove_lock
from gateway.store.sql_store import SQLStore
from tests.support.body_keys import sealer_in
from tests.support.s3_server import S3Server, Wire, s3_server, wire_to
from tests.support.store_samples import NOW, inbound, keep_raw, settings_for


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture
def wire(server: S3Server) -> Iterator[Wire]:
    with wire_to(server) as made:
        yield made


@contextmanager
def opened(folder: Path, s3: S3Settings, *, daemon: bool = False) -> Iterator[SQLStore]:
    settings = replace(settings_for(folder), bodies="s3")
    with SQLStore.open(settings, sealer_in(folder), daemon=daemon, s3=s3) as store:
        yield store


async def body_of(store: SQLStore, message_id: str) -> bytes:
    return (await store.read(lambda tx: tx.messages.raw(message_id))).body


def proven(bucket: Bucket, *, allow_shortening: bool = True) -> None:
    try:
        prove_lock(bucket, SystemClock().now(), allow_shortening=allow_shortening)
    finally:
        bucket.close()


# --- the proof ---


def test_a_bucket_that_locks_is_taken(server: S3Server) -> None:
    proven(Bucket(server.settings(server.bucket())))


@pytest.mark.parametrize(
    ("made", "told"),
    [
        ({"lock": False}, "keeps no versions.*--object-lock-enabled-for-bucket"),
        ({"default": False}, "locks nothing by default.*put-object-lock-configuration"),
    ],
)
def test_a_bucket_without_lock_is_refused(server: S3Server, made: dict[str, bool], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        proven(Bucket(server.settings(server.bucket(**made))))


def test_a_bucket_with_versions_alone_is_refused(server: S3Server) -> None:
    name = server.bucket(lock=False)
    server.client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    with pytest.raises(ConfigurationError, match="Object Lock is off"):
        proven(Bucket(server.settings(name)))


def test_a_default_that_administrators_can_lift_is_refused(server: S3Server) -> None:
    name = server.bucket(default=False)
    rule = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}}
    server.client.put_object_lock_configuration(Bucket=name, ObjectLockConfiguration=rule)
    with pytest.raises(ConfigurationError, match="in GOVERNANCE mode by default"):
        proven(Bucket(server.settings(name)))


def test_a_server_that_shortens_is_refused_unless_the_settings_say_so(server: S3Server) -> None:
    with pytest.raises(ConfigurationError, match=r"be shortened.*allow_retention_shortening"):
        proven(Bucket(server.settings(server.bucket())), allow_shortening=False)


def test_no_such_bucket_is_told(server: S3Server) -> None:
    with pytest.raises(ConfigurationError, match="there is no such bucket"):
        proven(Bucket(server.settings("never-made")))


class Weak(Bucket):
    """A bucket over the real server, of which one promise is taken away."""

    def __init__(self, server: S3Server, **weakness: Callable[..., Any]) -> None:
        super().__init__(server.settings(server.bucket()))
        self.server = server
        self.weakness = weakness

    def put(self, name: str, data: bytes, until: datetime | None) -> str:
        return str(self.weakness.get("put", super().put)(name, data, until))

    def delete(self, name: str, version: str | None) -> str:
        return str(self.weakness.get("delete", super().delete)(name, version))

    def retain(self, name: str, version: str, until: datetime) -> None:
        self.weakness.get("retain", super().retain)(name, version, until)

    def retention(self, name: str, version: str) -> s3_bucket.Retention:
        found: s3_bucket.Retention = self.weakness.get("retention", super().retention)(name, version)
        return found


def test_a_server_that_removes_what_is_locked_is_refused(server: S3Server) -> None:
    def remove(name: str, version: str | None) -> str:
        if version is not None and (name, version) in server_versions(bucket):
            server.destroy(bucket._settings.bucket, name, version)
            return version
        return Bucket.delete(bucket, name, version)

    bucket = Weak(server, delete=remove)
    with pytest.raises(ConfigurationError, match="removed an object before the end"):
        proven(bucket)


def test_a_server_that_says_no_and_removes_all_the_same_is_refused(server: S3Server) -> None:
    def remove(name: str, version: str | None) -> str:
        if version is not None and (name, version) in server_versions(bucket):
            server.destroy(bucket._settings.bucket, name, version)
            raise BucketRefusedError("delete_object", "AccessDenied")
        return Bucket.delete(bucket, name, version)

    bucket = Weak(server, delete=remove)
    with pytest.raises(ConfigurationError, match="the object is gone"):
        proven(bucket)


def server_versions(bucket: Weak) -> set[tuple[str, str]]:
    listed = bucket.server.client.list_object_versions(Bucket=bucket._settings.bucket).get("Versions", [])
    return {(one["Key"], one["VersionId"]) for one in listed}


def test_a_refusal_for_want_of_rights_proves_nothing(server: S3Server) -> None:
    def denied(*_arguments: object) -> str:
        raise BucketRefusedError("x", "AccessDenied")

    for call, right in (("delete", "DeleteObjectVersion"), ("retain", "PutObjectRetention"), ("put", "s3:PutObject")):
        with pytest.raises(ConfigurationError, match=right):
            proven(Weak(server, **{call: denied}))


def test_a_plain_put_that_is_not_locked_is_refused(server: S3Server) -> None:
    with pytest.raises(ConfigurationError, match="does not lock an object that asks for none"):
        proven(Weak(server, retention=lambda *_: s3_bucket.Retention("", None)))


def test_a_retention_that_is_not_kept_as_asked_is_refused(server: S3Server) -> None:
    short = s3_bucket.Retention("COMPLIANCE", datetime(2020, 1, 1, tzinfo=UTC))
    with pytest.raises(ConfigurationError, match="not the retention it asked for"):
        proven(Weak(server, retention=lambda *_: short))


def test_a_daemon_does_not_start_on_a_bucket_without_lock_and_makes_no_row(server: S3Server, tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigurationError, match="keeps no versions"),
        opened(tmp_path, server.settings(server.bucket(lock=False)), daemon=True),
    ):
        pass
    assert not (tmp_path / "gateway.db-wal").exists(), "the database was closed"


def test_a_server_that_is_away_at_the_start_is_temporary(server: S3Server, wire: Wire, tmp_path: Path) -> None:
    wire.cut()
    with (
        pytest.raises(StoreUnavailableError),
        opened(tmp_path, server.settings(server.bucket(), wire.port), daemon=True),
    ):
        pass


# --- placing ---


async def test_an_object_is_locked_for_the_retention_and_bears_no_more_than_ids(
    server: S3Server, tmp_path: Path
) -> None:
    name = server.bucket()
    before = SystemClock().now()
    with opened(tmp_path, server.settings(name, retention_days=100)) as store:
        message_id = await keep_raw(store, b"the raw bytes")
    ((key, version),) = server.names(name)
    assert key.startswith(f"direct-gateway/{message_id}/raw/")
    head = server.client.head_object(Bucket=name, Key=key, VersionId=version)
    assert head["ObjectLockMode"] == "COMPLIANCE"
    until = before + timedelta(days=100)
    assert until <= head["ObjectLockRetainUntilDate"] < until + timedelta(minutes=5)
    assert b"raw bytes" not in server.client.get_object(Bucket=name, Key=key)["Body"].read()


def test_a_name_that_is_taken_is_left_as_it_is(server: S3Server) -> None:
    name = server.bucket()
    bucket = Bucket(server.settings(name))
    until = retain_until(SystemClock().now(), timedelta(days=1))
    first = bucket.put("direct-gateway/x", b"first", until)
    with pytest.raises(NameTakenError):
        bucket.put("direct-gateway/x", b"second", until)
    assert server.names(name) == [("direct-gateway/x", first)]
    assert bucket.get("direct-gateway/x", first, 100) == b"first"
    bucket.close()


async def test_a_conflict_of_names_is_answered_with_another_name(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = iter(["aa" * 16, "aa" * 16, "bb" * 16, "aa" * 16, "aa" * 16, "aa" * 16])
    monkeypatch.setattr(secrets, "token_hex", lambda _n: next(drawn))
    name = server.bucket()
    with opened(tmp_path, server.settings(name)) as store:
        message_id = new_id(NOW)
        raws = [b"one", b"two"]
        placed = [await store.place_raw(message_id, MemoryBody(raw)) for raw in raws]
        assert [one and one.name[-2:] for one in placed] == ["aa", "bb"]
        with pytest.raises(StoreUnavailableError, match="taken"):
            await store.place_raw(message_id, MemoryBody(b"three"))
    assert len(server.names(name)) == 2


async def test_a_put_whose_answer_is_lost_is_no_success(server: S3Server, wire: Wire, tmp_path: Path) -> None:
    name = server.bucket()
    wire.on_stored = lambda _name: False
    with opened(tmp_path, server.settings(name, wire.port)) as store:
        with pytest.raises(StoreUnavailableError):
            await keep_raw(store, b"raw")
        assert len(server.names(name)) == 1, "it was stored, and nobody knows"
        wire.on_stored = lambda _name: True
        store._objects.bucket._guard._again_at = 0.0  # type: ignore[union-attr]
        assert await body_of(store, await keep_raw(store, b"raw")) == b"raw"


async def test_while_the_server_is_away_one_asks_and_the_others_fail_at_once(
    server: S3Server, wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_bucket, "_PAUSE_SECONDS", 3600.0)
    with opened(tmp_path, server.settings(server.bucket(), wire.port)) as store:
        message_id = await keep_raw(store, b"raw")
        wire.cut()
        with pytest.raises(StoreUnavailableError, match="does not answer"):
            await keep_raw(store, b"more")
        wire.connect()
        assert store.bucket_away()
        with pytest.raises(StoreUnavailableError, match="a moment ago"):
            await body_of(store, message_id)
        store._objects.bucket._guard._again_at = 0.0  # type: ignore[union-attr]
        assert await body_of(store, message_id) == b"raw"
        assert not store.bucket_away()


# --- reading (F32) ---


async def test_an_object_that_is_missing_is_told_by_the_message(
    server: S3Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = server.bucket()
    with opened(tmp_path, server.settings(name)) as store:
        message_id, other = await keep_raw(store, b"raw"), await keep_raw(store, b"other")
        ((key, version),) = [one for one in server.names(name) if message_id in one[0]]
        server.destroy(name, key, version)
        with caplog.at_level(logging.ERROR), pytest.raises(StoreError, match=f"{message_id}.*missing"):
            await body_of(store, message_id)
        assert [record.message for record in caplog.records if record.levelno == logging.ERROR]
        assert await body_of(store, other) == b"other"


async def test_what_is_put_over_an_object_or_hides_it_changes_nothing(server: S3Server, tmp_path: Path) -> None:
    name = server.bucket()
    with opened(tmp_path, server.settings(name)) as store:
        message_id = await keep_raw(store, b"raw")
        ((key, _),) = server.names(name)
        server.client.put_object(Bucket=name, Key=key, Body=b"forged")
        assert await body_of(store, message_id) == b"raw"
        server.client.delete_object(Bucket=name, Key=key)
        assert await body_of(store, message_id) == b"raw"


@pytest.mark.parametrize(
    "bend",
    [
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda _data: b"",
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: bytes([0xFF]) + data[1:],
        lambda data: bytes(len(data)),
    ],
)
async def test_an_object_that_was_altered_is_never_served(
    server: S3Server, wire: Wire, tmp_path: Path, bend: Callable[[bytes], bytes]
) -> None:
    with opened(tmp_path, server.settings(server.bucket(), wire.port)) as store:
        message_id = await keep_raw(store, b"raw")
        wire.bend = lambda _name, data: bend(data)
        with pytest.raises(StoreError, match=f"{message_id}.*altered") as caught:
            await body_of(store, message_id)
        assert not isinstance(caught.value, StoreUnavailableError), "this is not a fault that passes"
        wire.bend = lambda _name, data: data
        assert await body_of(store, message_id) == b"raw"


async def test_the_object_of_another_message_does_not_open_even_with_a_forged_row(
    server: S3Server, tmp_path: Path
) -> None:
    s3 = server.settings(server.bucket())
    with opened(tmp_path, s3) as store:
        one, two = await keep_raw(store, b"raw"), await keep_raw(store, b"raw")
    with contextlib.closing(sqlite3.connect(tmp_path / "gateway.db", isolation_level=None)) as forger:
        for (trigger,) in forger.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            forger.execute(f"DROP TRIGGER {trigger}")
        forger.execute("DELETE FROM body_object WHERE message_id = ?", (one,))
        assert forger.execute("UPDATE body_object SET message_id = ?", (one,)).rowcount == 1
    with opened(tmp_path, s3) as store:
        with pytest.raises(StoreError, match=f"{one}.*does not open"):
            await body_of(store, one)
        with pytest.raises(StoreError, match=f"{two}.*missing"):
            await body_of(store, two)


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x00\x00\x00\xff", b"\x00\x00\x00\x02abc", bytes(9)])
def test_taking_an_object_apart_ends_whatever_it_holds(data: bytes) -> None:
    assert len(list(unpacked(data))) <= len(data)


def test_parts_are_joined_and_taken_apart() -> None:
    parts = [b"", b"a", bytes(70_000), b"end"]
    assert list(unpacked(packed(parts))) == parts


def test_a_version_that_never_was_is_gone_and_a_bucket_that_is_gone_says_nothing_of_it(server: S3Server) -> None:
    name = server.bucket()
    bucket, nowhere = Bucket(server.settings(name)), Bucket(server.settings("never-made"))
    version = bucket.put("direct-gateway/x", b"x", None)
    with pytest.raises(ObjectGoneError):
        bucket.get("direct-gateway/y", version, 10)
    with pytest.raises(StoreUnavailableError):
        nowhere.get("direct-gateway/x", version, 10)
    bucket.close()
    nowhere.close()


# --- settings and credentials ---


def test_the_file_of_credentials_is_all_that_is_used_and_never_shown(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "from-the-environment")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    settings = server.settings(server.bucket())
    bucket = Bucket(settings)
    assert bucket._client._request_signer._credentials.access_key == "test"
    assert "SECRET-OF-THE-TEST" not in repr(settings)
    bucket.close()
    bad = tmp_path / "bad"
    for text in (
        "aws_secret_access_key = SECRET-OF-THE-TEST\n",
        "[default]\naws_secret_access_key = SECRET-OF-THE-TEST\n",
    ):
        bad.write_text(text)
        with pytest.raises(ConfigurationError, match="must hold") as caught:
            Bucket(replace(settings, credentials_file=bad))
        assert "SECRET" not in str(caught.value)
        assert caught.value.__cause__ is None
    with pytest.raises(ConfigurationError, match="cannot read"):
        Bucket(replace(settings, credentials_file=tmp_path / "none"))


def test_a_missing_extra_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("boto"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigurationError, match=r"pip install -e '\.\[s3\]'"):
        Bucket(S3Settings(bucket="bodies"))


def test_one_module_imports_boto() -> None:
    root = Path(gateway.__file__).parent
    found = set()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.partition(".")[0] in {"boto3", "botocore", "s3transfer"} for name in names):
                found.add(path.relative_to(root).as_posix())
    assert found == {"store/s3_bucket.py"}


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"bucket": "Not A Bucket"}, "s3.bucket must be"),
        ({"prefix": "no-slash"}, "s3.prefix must be"),
        ({"prefix": "/first/"}, "s3.prefix must be"),
        ({"endpoint_url": "http://s3.example"}, "http:// is taken for a loopback"),
        ({"endpoint_url": "https://user:secret@s3.example"}, "s3.endpoint_url must be"),
        ({"retention_days": 0}, "between 1 and 36500"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(section: dict[str, object], told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=told) as caught:
        from_document({"s3": section}, tmp_path)
    assert "secret" not in str(caught.value)


def test_bodies_in_a_bucket_need_a_bucket(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"s3\.bucket must name the bucket"):
        from_document({"store": {"bodies": "s3"}}, tmp_path)


async def test_the_setting_may_be_changed_and_the_bucket_is_still_needed(server: S3Server, tmp_path: Path) -> None:
    s3 = server.settings(server.bucket())
    with SQLStore.open(settings_for(tmp_path), sealer_in(tmp_path), s3=s3) as store:
        early = new_id(NOW)
        await store.write(lambda tx: tx.messages.add_raw(early, NOW, inbound(b"in the database")))
    with opened(tmp_path, s3) as store:
        later = await keep_raw(store, b"in the bucket")
        assert await body_of(store, early) == b"in the database"
    with SQLStore.open(settings_for(tmp_path), sealer_in(tmp_path), daemon=True, s3=s3) as store:
        assert await body_of(store, later) == b"in the bucket"
    with pytest.raises(ConfigurationError, match="stored mail lies in a bucket"):
        SQLStore.open(settings_for(tmp_path), sealer_in(tmp_path), daemon=True)
    with (
        SQLStore.open(settings_for(tmp_path), sealer_in(tmp_path)) as store,
        pytest.raises(StoreError, match="names none"),
    ):
        await body_of(store, later)


# --- orphans ---


async def test_orphans_and_missing_objects_are_found_on_every_page(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = server.bucket()
    with opened(tmp_path, server.settings(name)) as store:
        ids = [await keep_raw(store, b"%d" % number) for number in range(5)]
        orphan = new_id(NOW)
        await store.place_raw(orphan, MemoryBody(b"never named"))
        for message_id in (ids[0], ids[-1]):
            ((key, version),) = [one for one in server.names(name) if message_id in one[0]]
            server.destroy(name, key, version)
        bucket = store._objects.bucket  # type: ignore[union-attr]
        real = bucket._ask
        monkeypatch.setattr(
            bucket,
            "_ask",
            lambda operation, **asked: real(
                operation, **({"MaxKeys": 2} if operation == "list_object_versions" else {}), **asked
            ),
        )
        later = SystemClock().now() + timedelta(hours=2)
        for now, found in ((SystemClock().now(), 0), (later, 1)):
            pages = list(store.bucket_pages(now))
            assert sum(page.seen for page in pages) == 4
            assert [one.name.split("/")[1] for page in pages for one in page.orphans] == [orphan] * found
            missing = {one.message_id for page in pages for one in page.missing}
            assert missing == {ids[0], ids[-1]}
    assert timedelta(hours=2) > s3_orphans.IN_FLIGHT
