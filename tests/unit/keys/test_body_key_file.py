"""The key file: its form, its rights, its changes, and what is refused in clear words."""

from __future__ import annotations

import base64
import os
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap_with_padding

from gateway.core.errors import ConfigurationError, KeyUnavailableError, SealBrokenError
from gateway.keys.body_key_file import KeyFile, new_key, parse_ring, ring_text
from gateway.keys.body_keys import body_keys
from gateway.settings import Settings, StoreSettings, credential_path, from_document
from tests.support.body_keys import key_file_in

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
PROJECT = Path(__file__).resolve().parents[3]
DEK = bytes(range(32))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def secret_of(path: Path, kek_id: str) -> bytes:
    return next(key.secret for key in parse_ring(path.read_bytes(), "x") if key.id == kek_id)


def test_a_new_file_is_for_this_user_only_and_says_what_it_is(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        ring = KeyFile(tmp_path / "store" / "bodies.keys")
        made = ring.create(NOW)
        ring.make_key(NOW + timedelta(seconds=1))
    finally:
        os.umask(before)
    path = tmp_path / "store" / "bodies.keys"
    assert mode(path) == 0o600
    assert mode(path.parent) == 0o700
    assert made.startswith("20260301T120000Z-")
    text = path.read_text()
    assert "whoever has this file and the database can read all mail" in text
    assert "Keep a copy" in text
    assert [line.split()[0] for line in text.splitlines() if not line.startswith("#")] == ["key", "key"]
    assert list(path.parent.iterdir()) == [path]


def test_it_wraps_with_aes_kwp_and_unwraps_again(tmp_path: Path) -> None:
    ring = key_file_in(tmp_path)
    wrapped = ring.wrap(ring.current_id, DEK)
    assert ring.unwrap(ring.current_id, wrapped) == DEK
    secret = secret_of(tmp_path / "bodies.keys", ring.current_id)
    assert aes_key_unwrap_with_padding(secret, wrapped[1:]) == DEK, "RFC 5649, after one byte of the form"


def test_a_wrapped_key_that_was_changed_or_is_of_another_key_does_not_open(tmp_path: Path) -> None:
    ring = key_file_in(tmp_path)
    old = ring.current_id
    wrapped = ring.wrap(old, DEK)
    new = ring.make_key(NOW)
    for at in range(len(wrapped)):
        changed = bytes(b ^ 1 if i == at else b for i, b in enumerate(wrapped))
        with pytest.raises(SealBrokenError):
            ring.unwrap(old, changed)
    for cut in (b"", wrapped[:1], wrapped[:-1], wrapped[:-8], wrapped + b"\0" * 8):
        with pytest.raises(SealBrokenError):
            ring.unwrap(old, cut)
    with pytest.raises(SealBrokenError):
        ring.unwrap(new, wrapped)
    assert ring.unwrap(old, wrapped) == DEK


def test_the_newest_key_stands_first_and_the_others_stay(tmp_path: Path) -> None:
    ring = key_file_in(tmp_path)
    first = ring.current_id
    wrapped = ring.wrap(first, DEK)
    second = ring.make_key(NOW)
    third = ring.make_key(NOW + timedelta(days=1))
    assert ring.ids() == (third, second, first)
    assert ring.current_id == third
    assert ring.unwrap(first, wrapped) == DEK
    assert ring.remove_key(second)
    assert not ring.remove_key(second)
    assert KeyFile(tmp_path / "bodies.keys").ids() == (third, first)


def test_the_last_key_is_never_taken_out(tmp_path: Path) -> None:
    ring = key_file_in(tmp_path)
    with pytest.raises(ConfigurationError, match="hold no key any more"):
        ring.remove_key(ring.current_id)
    assert ring.ids()


def test_a_file_that_is_there_is_never_written_over(tmp_path: Path) -> None:
    ring = key_file_in(tmp_path)
    before = (tmp_path / "bodies.keys").read_bytes()
    with pytest.raises(ConfigurationError, match="never written over"):
        ring.create(NOW)
    assert (tmp_path / "bodies.keys").read_bytes() == before


def test_a_key_that_another_process_added_is_found(tmp_path: Path) -> None:
    """F33: the daemon meets the id of a key that it has not read yet."""
    ring = key_file_in(tmp_path)
    assert len(ring.ids()) == 1
    other = KeyFile(tmp_path / "bodies.keys")
    made = other.make_key(NOW)
    assert ring.unwrap(made, other.wrap(made, DEK)) == DEK
    assert ring.ids() == other.ids()


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    ring = key_file_in(tmp_path)
    with pytest.raises(KeyUnavailableError, match=r"the key gone-1, .* is not in .*bodies\.keys; put it back"):
        ring.unwrap("gone-1", b"\x01" + bytes(40))
    with pytest.raises(KeyUnavailableError, match="gone-1"):
        ring.wrap("gone-1", DEK)


def test_a_ring_that_became_unreadable_stays_in_force(tmp_path: Path) -> None:
    ring = key_file_in(tmp_path)
    wrapped = ring.wrap(ring.current_id, DEK)
    (tmp_path / "bodies.keys").write_text("nonsense\n")
    with pytest.raises(ConfigurationError, match="line 1"):
        ring.reload()
    assert ring.unwrap(ring.current_id, wrapped) == DEK
    (tmp_path / "bodies.keys").unlink()
    with pytest.raises(ConfigurationError, match="there is no file"):
        ring.reload()
    assert ring.unwrap(ring.current_id, wrapped) == DEK


GOOD = base64.b64encode(bytes(32)).decode()
BAD_FILES = {
    "": "holds no key",
    "# only a comment\n\n": "holds no key",
    f"key a {GOOD}\nkey a {GOOD}\n": "line 2 has an id that stands above it already",
    f"key {GOOD}\n": "line 1 is not of the form: key ID BASE64",
    f"kek a {GOOD}\n": "line 1 is not of the form",
    f"key a/b {GOOD}\n": "line 1 is not of the form",
    f"# x\nkey a {GOOD[:-4]}\n": "line 2 does not hold 256 bits",
    "key a SECRETSECRET*\n": "line 1 does not hold 256 bits",
    "key a \xff\n": "line 1 does not hold 256 bits",
}


@pytest.mark.parametrize("text", BAD_FILES)
def test_a_wrong_file_is_refused_by_its_line_and_never_repeated(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bodies.keys"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigurationError, match=BAD_FILES[text]) as caught:
        KeyFile(path).ids()
    assert GOOD[:8] not in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_nothing_shows_a_key(tmp_path: Path) -> None:
    ring = key_file_in(tmp_path)
    key = parse_ring((tmp_path / "bodies.keys").read_bytes(), "x")[0]
    for shown in (repr(ring), repr(key), str(key)):
        assert base64.b64encode(key.secret).decode() not in shown
        assert repr(key.secret) not in shown


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_rotation_by_root_leaves_the_file_to_its_owner(tmp_path: Path) -> None:
    """The gateway runs under a user of its own, and must be able to read the new ring."""
    ring = key_file_in(tmp_path)
    os.chown(tmp_path / "bodies.keys", 12345, 23456)
    ring.make_key(NOW)
    status = (tmp_path / "bodies.keys").stat()
    assert (status.st_uid, status.st_gid, mode(tmp_path / "bodies.keys")) == (12345, 23456, 0o600)


def test_a_file_of_another_user_is_not_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ring = key_file_in(tmp_path)
    before = (tmp_path / "bodies.keys").read_bytes()
    monkeypatch.setattr(os, "geteuid", lambda: 4711)

    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "fchown", refused)
    with pytest.raises(ConfigurationError, match="belongs to another user"):
        ring.make_key(NOW)
    assert (tmp_path / "bodies.keys").read_bytes() == before
    assert len(ring.ids()) == 1


def test_a_round_trip_of_the_text() -> None:
    keys = [new_key(NOW), new_key(NOW)]
    assert parse_ring(ring_text(keys).encode(), "x") == keys


def test_two_processes_that_add_keys_lose_none(tmp_path: Path) -> None:
    key_file_in(tmp_path)
    code = (
        "import sys\nfrom pathlib import Path\nfrom datetime import datetime, UTC\n"
        "from gateway.keys.body_key_file import KeyFile\n"
        "for _ in range(15): print(KeyFile(Path(sys.argv[1])).make_key(datetime.now(UTC)))\n"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "bodies.keys")], cwd=PROJECT, stdout=subprocess.PIPE
        )
        for _ in range(3)
    ]
    made = [line.decode() for child in children for line in child.communicate(timeout=60)[0].split()]
    assert len(made) == 45
    assert set(made) <= set(KeyFile(tmp_path / "bodies.keys").ids())


# --- settings ---


def test_a_credential_of_systemd_is_read_and_not_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key_file_in(tmp_path)
    (tmp_path / "bodies.keys").rename(tmp_path / "mail")
    settings = from_document({"store": {"key_file": "credential:mail"}}, tmp_path)
    assert settings.store.key_file == "credential:mail"
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    ring = body_keys(settings)
    with pytest.raises(ConfigurationError, match=r"LoadCredentialEncrypted=mail:FILE"):
        ring.ids()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    before = (tmp_path / "mail").read_bytes()
    assert ring.unwrap(ring.current_id, ring.wrap(ring.current_id, DEK)) == DEK
    with pytest.raises(ConfigurationError, match="keys make --print"):
        ring.make_key(NOW)
    assert not ring.remove_key(ring.current_id)
    assert (tmp_path / "mail").read_bytes() == before
    assert credential_path("credential:mail") == tmp_path / "mail"


@pytest.mark.parametrize("value", ["", "credential:", "credential:../x", "credential:a/b", "credential:.."])
def test_a_wrong_place_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigurationError, match=r"store\.key_file"):
        from_document({"store": {"key_file": value}}, tmp_path)


def test_a_relative_path_begins_at_the_settings(tmp_path: Path) -> None:
    assert from_document({}, tmp_path).store.key_file == str(tmp_path / "certs/store/bodies.keys")


def test_a_label_without_a_token_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"trust\.pkcs11_module"):
        body_keys(Settings(store=StoreSettings(key_token_label="bodies")))
