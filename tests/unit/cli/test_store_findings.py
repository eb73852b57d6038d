"""What ``config check`` finds of the database, the audit log, the bucket and the secrets before ``serve`` would."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sqlite3
from pathlib import Path

import pytest

from tests.support.gateway_process import free_ports
from tests.unit.cli.clinic_harness import FRONT, Clinic


def put(clinic: Clinic, section: str, key: str, value: str | bool) -> None:
    """Change a setting in the file of the practice."""
    path = Path(clinic.config)
    head, mark, rest = path.read_text().partition(f"[{section}]\n")
    assert mark
    changed, count = re.subn(rf"(?m)^{key} = .*$", lambda _: f"{key} = {json.dumps(value)}", rest, count=1)
    assert count == 1
    path.write_text(head + mark + changed)


def checked(clinic: Clinic, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[str], list[str]]:
    capsys.readouterr()
    status = clinic.run("config", "check", "--json", *words)
    found = json.loads(capsys.readouterr().out)
    return status, found.get("errors", [found.get("error")]), found.get("warnings", [])


def test_a_postgresql_that_does_not_answer_is_an_error(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("psycopg")
    [port] = free_ports(1)
    put(clinic, "store", "url", f"postgresql://nobody@127.0.0.1:{port}/gateway")
    status, errors, _ = checked(clinic, capsys)
    assert status == 2
    assert ["store.url: the database does not answer" in text for text in errors] == [True]
    put(clinic, "store", "url", "postgresql://nobody@127.0.0.1/gateway?ssl_mode=require")
    [told] = checked(clinic, capsys)[1]
    assert told.startswith("store.url is not a URL of PostgreSQL: it has a parameter ssl_mode that PostgreSQL does not")
    assert told.endswith("did you mean sslmode?")
    put(clinic, "store", "url", "postgresql://nobody:half?of=a@127.0.0.1/gateway")
    assert not any("half" in text or "of" in text.split() for text in checked(clinic, capsys)[1])


def test_the_password_of_the_database_must_be_there_and_its_own(
    clinic: Clinic, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("psycopg")
    monkeypatch.setattr("gateway.store.opening.missing_tables", lambda _settings: "")
    put(clinic, "store", "url", "postgresql://nobody@127.0.0.1/gateway")
    put(clinic, "store", "password_file", "pg-password")
    path = clinic.directory / "pg-password"
    status, errors, _ = checked(clinic, capsys)
    assert (status, errors) == (2, [f"store.password_file: there is no file {path}"])
    path.write_text("\n")
    path.chmod(0o644)
    status, errors, warnings = checked(clinic, capsys)
    assert (status, errors) == (2, [f"store.password_file: {path} is empty"])
    assert f"store.password_file: {path} can be read by others; run: chmod 600 {path}" in warnings


def test_the_key_that_signed_heads_must_be_there(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    key = clinic.directory / "certs" / "audit" / "heads.key.pem"
    kept = key.read_bytes()
    key.chmod(0o644)
    assert "other users may read" in " ".join(checked(clinic, capsys)[1])
    key.chmod(0o600)
    assert checked(clinic, capsys)[1] == []
    assert clinic.run("audit", "head") == 0
    key.unlink()
    status, errors, _ = checked(clinic, capsys)
    assert (status, errors) == (2, [f"audit.signing_key_file: there is no key {key}; put it back from your copy"])
    key.write_bytes(kept)
    key.chmod(0o600)
    assert checked(clinic, capsys)[0] == 0


def test_a_folder_that_takes_no_heads_is_a_warning(
    clinic: Clinic, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = clinic.directory / "audit-heads"
    shutil.rmtree(heads, ignore_errors=True)
    heads.write_text("no folder")
    status, _, warnings = checked(clinic, capsys, "--strict")
    assert status == 1
    assert f"audit.heads_dir: {heads} is no folder: signed heads would stay in the database only" in warnings
    heads.unlink()
    put(clinic, "audit", "heads_dir", "/nonexistent/stick/heads")
    assert any("there is no folder /nonexistent/stick" in text for text in checked(clinic, capsys)[2])
    heads.mkdir()
    put(clinic, "audit", "heads_dir", str(heads))
    assert not any("heads_dir" in text for text in checked(clinic, capsys)[2])
    # Root may write everywhere, so the refusal is played.
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != heads and real(path, mode))
    assert any(f"this user cannot write to {heads}" in text for text in checked(clinic, capsys)[2])


def test_an_empty_password_of_an_upstream_mailbox_is_an_error(
    clinic: Clinic, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = clinic.directory / "upstream-password"
    secret.write_text("")
    secret.chmod(0o600)
    with Path(clinic.config).open("a") as config:
        config.write('\n[[fetch]]\nname = "upstream"\nhost = "imap.example"\nusername = "u"\n')
        config.write(f'password_file = "{secret}"\naddresses = ["{FRONT}"]\n')
    status, errors, _ = checked(clinic, capsys)
    assert (status, errors) == (
        2,
        [f"[[fetch]] upstream: password_file {secret} must hold one line of text and nothing else"],
    )
    secret.write_text("good\n")
    assert checked(clinic, capsys)[0] == 0


def test_a_bucket_says_where_it_was_looked_for_and_what_is_missing(
    clinic: Clinic, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("boto3")
    [port] = free_ports(1)
    put(clinic, "s3", "bucket", "bodies")
    put(clinic, "s3", "endpoint_url", f"http://127.0.0.1:{port}")
    put(clinic, "s3", "allow_retention_shortening", True)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(clinic.directory / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(clinic.directory / "none"))
    status, errors, warnings = checked(clinic, capsys, "--lock")
    assert status == 2
    assert ["s3.credentials_file: there are no credentials" in text for text in errors] == [True]
    assert any(text.startswith("s3.allow_retention_shortening is true") for text in warnings)
    assert clinic.run("store", "orphans", "--json") == 2
    assert "s3.credentials_file" in json.loads(capsys.readouterr().out)["error"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    status, errors, _ = checked(clinic, capsys, "--lock")
    [told] = errors
    assert f"the bucket at 127.0.0.1:{port} does not answer (get_bucket_versioning, " in told
    assert told.endswith("; see s3.endpoint_url")
    captured = capsys.readouterr()
    assert "bucket_is_away" not in captured.err


def test_tables_of_another_release_are_found_before_serve_finds_them(
    clinic: Clinic, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not any("schema" in text for text in checked(clinic, capsys)[1] if text)
    with contextlib.closing(sqlite3.connect(Path(clinic.config).parent / "data" / "gateway.db")) as database:
        database.execute("INSERT INTO schema_version VALUES (99, '7.0', NULL)")
        database.commit()
    status, errors, _ = checked(clinic, capsys)
    assert status == 2
    assert ["start direct-gateway 7.0 or newer" in text for text in errors] == [True]
