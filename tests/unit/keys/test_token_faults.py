"""A token that fails, goes away and comes back: what is a fault of ours must never become a verdict (AS-49).

The library in front of the real token fails on demand; see tests/support/faulty_token.c.
"""

from __future__ import annotations

import builtins
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.core.errors import ConfigurationError, KeyUnavailableError, RefusedError, RejectionError
from gateway.core.verdict import Reason
from gateway.keys import token_connection
from gateway.keys.key_ring import KeyRing
from gateway.keys.loading import TokenSettings, load_key_ring
from gateway.keys.token_connection import TokenOperationError
from gateway.keys.token_keys import TokenKey
from gateway.sta.cms.enveloped import open_enveloped
from gateway.sta.cms.writing import OutgoingSigner, encrypt, sign_detached
from tests.support.softhsm import PIN, FaultyToken
from tests.unit.sta_cms.cms_samples import NOW, RECIPIENT, SENDER, TEXT, file_key, identity

GENERAL_ERROR = 0x05
FUNCTION_FAILED = 0x06
DEVICE_ERROR = 0x30
DEVICE_MEMORY = 0x31
HOST_MEMORY = 0x02
ENCRYPTED_DATA_INVALID = 0x40
FUNCTION_NOT_PERMITTED = 0x68
SESSION_CLOSED = 0xB0
SESSION_HANDLE_INVALID = 0xB3
MECHANISM_INVALID = 0x70
PIN_INCORRECT = 0xA0
PIN_LOCKED = 0xA4
USER_NOT_LOGGED_IN = 0x101
NOT_INITIALIZED = 0x190
VENDOR = 0x80000001


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that was lost is looked for again with the next operation."""
    monkeypatch.setattr(token_connection, "RETRY_AFTER_SECONDS", 0.0)


def ring_of(faulty: FaultyToken, kind: str = "rsa2048") -> KeyRing:
    faulty.put(identity(RECIPIENT, kind), "01", derive=kind.startswith("p"))
    return load_key_ring(None, None, faulty.settings)


def message(kind: str = "rsa2048") -> bytes:
    return encrypt(TEXT, [identity(RECIPIENT, kind).certificate_der])


def opens(ring: KeyRing, kind: str = "rsa2048") -> bool:
    return open_enveloped(message(kind), ring.keys_for([RECIPIENT])).content == TEXT


@pytest.mark.parametrize("kind", ["rsa2048", "p256"])
def test_a_token_is_taken_away_and_put_back(faulty: FaultyToken, kind: str) -> None:
    ring = ring_of(faulty, kind)
    assert opens(ring, kind)
    faulty.order("gone")
    for _ in range(3):
        with pytest.raises(KeyUnavailableError, match="no token is labelled 'clinic'"):
            opens(ring, kind)
    faulty.recall("gone")
    assert opens(ring, kind)


@pytest.mark.parametrize("code", [SESSION_CLOSED, SESSION_HANDLE_INVALID, USER_NOT_LOGGED_IN, NOT_INITIALIZED])
@pytest.mark.parametrize("call", ["C_DecryptInit", "C_Decrypt"])
def test_a_lost_session_is_opened_again_within_the_operation(faulty: FaultyToken, call: str, code: int) -> None:
    ring = ring_of(faulty)
    logins, decryptions = faulty.calls("C_Login"), faulty.calls("C_DecryptInit")
    faulty.order(call, code, until="once")
    assert opens(ring)
    assert faulty.calls("C_Login") == logins + 1
    assert faulty.calls("C_DecryptInit") == decryptions + 2


@pytest.mark.parametrize(
    "code", [GENERAL_ERROR, FUNCTION_FAILED, DEVICE_ERROR, DEVICE_MEMORY, HOST_MEMORY, ENCRYPTED_DATA_INVALID, VENDOR]
)
def test_a_passing_fault_loses_no_message(faulty: FaultyToken, code: int) -> None:
    """Any code at all: it may speak of the message or of the device, and only a known answer tells."""
    ring = ring_of(faulty)
    faulty.order("C_Decrypt", code, until="once")
    assert opens(ring)


@pytest.mark.parametrize(
    "code", [GENERAL_ERROR, FUNCTION_FAILED, DEVICE_ERROR, ENCRYPTED_DATA_INVALID, FUNCTION_NOT_PERMITTED, VENDOR]
)
@pytest.mark.parametrize(("kind", "call"), [("rsa2048", "C_Decrypt"), ("p256", "C_DeriveKey")])
def test_a_lasting_fault_is_ours_whatever_its_code(faulty: FaultyToken, kind: str, call: str, code: int) -> None:
    ring = ring_of(faulty, kind)
    faulty.order(call, code)
    with pytest.raises(KeyUnavailableError, match="does not work now"):
        opens(ring, kind)
    faulty.recall(call)
    assert opens(ring, kind)


def wrong_padding(der: bytes) -> bytes:
    """The same message with another encrypted key, of the same length."""
    at = der.index(b"\x04\x82\x01\x00") + 4
    return der[:at] + bytes((0x01,)) * 256 + der[at + 256 :]


def wrong_key(der: bytes) -> bytes:
    """The same message with a key in right padding that is another one."""
    at = der.index(b"\x04\x82\x01\x00") + 4
    other = message()
    return der[:at] + other[other.index(b"\x04\x82\x01\x00") + 4 :][:256] + der[at + 256 :]


@pytest.mark.parametrize("spoil", [wrong_padding, wrong_key])
def test_every_message_that_cannot_be_opened_costs_the_same(
    faulty: FaultyToken, spoil: Callable[[bytes], bytes]
) -> None:
    """S/MIME rule 2: the token sees as many operations for wrong padding as for a wrong key, and no new session."""
    ring = ring_of(faulty)
    before = {name: faulty.calls(name) for name in ("C_DecryptInit", "C_Login", "C_OpenSession", "C_GenerateRandom")}
    with pytest.raises(RejectionError) as caught:
        open_enveloped(spoil(message()), ring.keys)
    assert str(caught.value) == "cannot_decrypt: no private key here opens the message"
    made = {name: faulty.calls(name) - count for name, count in before.items()}
    assert made == {"C_DecryptInit": 3, "C_Login": 0, "C_OpenSession": 0, "C_GenerateRandom": 0}


def test_another_key_opens_what_the_lost_token_cannot(faulty: FaultyToken) -> None:
    ring = ring_of(faulty)
    in_memory = file_key(identity(SENDER))
    both = encrypt(TEXT, [identity(RECIPIENT).certificate_der, identity(SENDER).certificate_der])
    faulty.order("gone")
    assert open_enveloped(both, [*ring.keys, in_memory]).content == TEXT
    assert open_enveloped(both, [in_memory, *ring.keys]).content == TEXT
    with pytest.raises(KeyUnavailableError):
        open_enveloped(message(), [*ring.keys, in_memory])


def test_mail_for_others_does_not_wait_for_the_token(faulty: FaultyToken) -> None:
    ring = ring_of(faulty)
    faulty.order("gone")
    with pytest.raises(RejectionError) as caught:
        open_enveloped(encrypt(TEXT, [identity(SENDER).certificate_der]), ring.keys)
    assert caught.value.reason is Reason.CANNOT_DECRYPT


def test_a_lost_token_is_left_alone_for_a_while(faulty: FaultyToken, monkeypatch: pytest.MonkeyPatch) -> None:
    ring = ring_of(faulty)
    key = ring.keys[0]
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(token_connection, "RETRY_AFTER_SECONDS", 5.0)
    faulty.order("gone")
    with pytest.raises(KeyUnavailableError, match="no token"):
        key.decrypt_rsa_pkcs1v15(b"x" * 256)
    faulty.recall("gone")
    now += 4.9
    with pytest.raises(KeyUnavailableError, match="could not be reached a moment ago"):
        key.decrypt_rsa_pkcs1v15(b"x" * 256)
    now += 0.2
    assert opens(ring)


def test_a_signature_waits_for_the_token(faulty: FaultyToken) -> None:
    ring = ring_of(faulty)
    (signer,) = ring.signers_for(RECIPIENT)
    outgoing = OutgoingSigner.of(signer)
    faulty.order("C_SignInit", SESSION_HANDLE_INVALID, until="once")
    assert sign_detached(TEXT, outgoing, NOW)
    faulty.order("C_Sign", FUNCTION_FAILED, until="once")
    assert sign_detached(TEXT, outgoing, NOW)
    faulty.order("C_Sign", FUNCTION_FAILED)
    with pytest.raises(KeyUnavailableError):
        sign_detached(TEXT, outgoing, NOW)
    faulty.recall("C_Sign")
    assert sign_detached(TEXT, outgoing, NOW)


def test_a_key_that_is_gone_from_the_token(faulty: FaultyToken) -> None:
    ring = ring_of(faulty)
    faulty.run("--delete-token", "--token", "clinic")
    faulty.make()
    token_connection._connections[next(iter(token_connection._connections))].reset()
    with pytest.raises(KeyUnavailableError, match="has lost a key"):
        opens(ring)


def test_a_wrong_pin_is_sent_once(faulty: FaultyToken) -> None:
    faulty.put(identity(RECIPIENT), "01")
    settings = TokenSettings(faulty.library, "clinic", faulty.pin_file("wrong-pin"))
    before = faulty.calls("C_Login")
    for complaint in ("PIN in trust.pkcs11_pin_file is wrong", "has refused this PIN before", "refused this PIN"):
        with pytest.raises(ConfigurationError, match=complaint) as caught:
            load_key_ring(None, None, settings)
        assert "wrong-pin" not in str(caught.value)
    assert faulty.calls("C_Login") == before + 1
    assert opens(load_key_ring(None, None, faulty.settings))


def test_a_new_pin_is_tried_at_once_and_a_wrong_one_changes_nothing(faulty: FaultyToken) -> None:
    ring = ring_of(faulty)
    settings = TokenSettings(faulty.library, "clinic", faulty.pin_file("wrong-pin"))
    with pytest.raises(ConfigurationError, match="is wrong"):
        load_key_ring(None, None, settings)
    assert opens(ring)
    logins = faulty.calls("C_Login")
    assert opens(load_key_ring(None, None, faulty.settings))
    assert faulty.calls("C_Login") == logins


def test_the_last_try_of_a_pin_is_not_ours(faulty: FaultyToken) -> None:
    faulty.put(identity(RECIPIENT), "01")
    faulty.order("final")
    before = faulty.calls("C_Login")
    with pytest.raises(ConfigurationError, match="one more wrong PIN locks the token"):
        load_key_ring(None, None, faulty.settings)
    assert faulty.calls("C_Login") == before


def test_a_pin_that_was_changed_or_locked_while_we_run(faulty: FaultyToken) -> None:
    """The login is not tried again and again; the mail waits."""
    ring = ring_of(faulty)
    logins = faulty.calls("C_Login")
    faulty.order("C_Login", PIN_INCORRECT)
    faulty.order("C_Decrypt", SESSION_HANDLE_INVALID, until="once")
    for _ in range(5):
        with pytest.raises(KeyUnavailableError, match="PIN"):
            opens(ring)
    assert faulty.calls("C_Login") == logins + 1
    faulty.recall("C_Login")


def test_a_locked_pin_at_the_start(faulty: FaultyToken) -> None:
    faulty.put(identity(RECIPIENT), "01")
    faulty.order("C_Login", PIN_LOCKED)
    with pytest.raises(ConfigurationError, match=r"lets nobody in \(PinLocked\)"):
        load_key_ring(None, None, faulty.settings)


def test_a_token_that_does_not_answer_at_the_start_is_no_mistake_in_the_settings(faulty: FaultyToken) -> None:
    faulty.put(identity(RECIPIENT), "01")
    faulty.order("C_OpenSession", DEVICE_ERROR)
    with pytest.raises(KeyUnavailableError, match=r"cannot be opened \(DeviceError\)"):
        load_key_ring(None, None, faulty.settings)
    faulty.recall("C_OpenSession")
    faulty.order("gone")
    with pytest.raises(KeyUnavailableError, match="is it plugged in"):
        load_key_ring(None, None, faulty.settings)
    faulty.recall("gone")
    assert opens(load_key_ring(None, None, faulty.settings))


def test_a_fault_while_the_keys_are_read_leaves_no_key_out(faulty: FaultyToken) -> None:
    """A key that was left out would have its mail refused; it is kept, and its mail waits."""
    faulty.put(identity(RECIPIENT), "01")
    faulty.order("C_Decrypt", FUNCTION_FAILED)
    ring = load_key_ring(None, None, faulty.settings)
    assert any("did not decrypt a test with the key of certificate 01" in warning for warning in ring.warnings)
    with pytest.raises(KeyUnavailableError):
        opens(ring)
    faulty.recall("C_Decrypt")
    assert opens(ring)


@pytest.mark.parametrize(("kind", "call"), [("rsa2048", "C_Decrypt"), ("p256", "C_DeriveKey"), ("rsa2048", "C_Sign")])
def test_a_session_that_is_broken_without_saying_so_is_replaced(faulty: FaultyToken, kind: str, call: str) -> None:
    ring = ring_of(faulty, kind)
    faulty.order(call, GENERAL_ERROR, until="session")
    if call == "C_Sign":
        assert ring.keys[0].sign(b"data", digest="sha256")
    else:
        assert opens(ring, kind)


def test_a_library_that_sees_its_token_again_only_after_a_new_start(faulty: FaultyToken) -> None:
    ring = ring_of(faulty)
    faulty.order("C_OpenSession", DEVICE_ERROR, until="library")
    faulty.order("C_DecryptInit", SESSION_HANDLE_INVALID, until="once")
    assert opens(ring)


def test_a_token_that_is_lost_between_two_attempts_is_no_verdict() -> None:
    class Fickle:
        """Right when it is asked, gone when it is needed."""

        certificate = identity(RECIPIENT).certificate_der
        names = (RECIPIENT,)
        may_decrypt = may_sign = True

        def decrypt_rsa_pkcs1v15(self, encrypted_key: bytes) -> bytes:
            raise KeyUnavailableError("gone")

        def decrypt_rsa_oaep(self, encrypted_key: bytes, *, digest: str, mgf_digest: str, label: bytes) -> bytes:
            raise AssertionError

        def agree(self, peer_public_key: bytes) -> bytes:
            raise AssertionError

        def sign(self, data: bytes, *, digest: str) -> bytes:
            raise AssertionError

        def recheck(self) -> bool:
            return True

    with pytest.raises(KeyUnavailableError, match="gone"):
        open_enveloped(message(), [Fickle()])


def test_what_the_token_never_does_is_told_at_the_start_and_not_waited_for(faulty: FaultyToken) -> None:
    faulty.put(identity(RECIPIENT), "01")
    faulty.put(identity(SENDER, "p256"), "02", derive=True)
    faulty.order("C_DecryptInit", MECHANISM_INVALID)
    faulty.order("C_DeriveKey", MECHANISM_INVALID)
    ring = load_key_ring(None, None, faulty.settings)
    assert [(key.may_decrypt, key.may_sign) for key in ring.keys] == [(False, True), (False, True)]
    assert any("does not decrypt with a key of the kind of certificate 01" in warning for warning in ring.warnings)
    assert ring.keys[0].sign(b"data", digest="sha256")
    with pytest.raises(RejectionError):
        open_enveloped(message(), ring.keys)
    faulty.order("C_SignInit", MECHANISM_INVALID)
    with pytest.raises(RefusedError, match="its token does not do it"):
        ring.keys[0].sign(b"data", digest="sha256")
    ring = load_key_ring(None, None, faulty.settings)
    assert ring.keys == ()
    assert any("neither decrypts nor signs with a key of its kind" in warning for warning in ring.warnings)


def test_what_the_token_does_no_longer_is_waited_for(faulty: FaultyToken) -> None:
    ring = ring_of(faulty)
    faulty.order("C_DecryptInit", MECHANISM_INVALID)
    with pytest.raises(KeyUnavailableError, match="no longer does that"):
        opens(ring)


def test_a_search_that_fails_is_a_fault_and_not_an_empty_token(faulty: FaultyToken) -> None:
    faulty.put(identity(RECIPIENT), "01")
    faulty.order("C_GenerateRandom", SESSION_HANDLE_INVALID)
    with pytest.raises((KeyUnavailableError, TokenOperationError)):
        load_key_ring(None, None, faulty.settings)


@pytest.mark.parametrize("kind", ["rsa2048", "p256"])
def test_many_threads_one_at_a_time_inside_the_library(faulty: FaultyToken, kind: str) -> None:
    """python-pkcs11 tells the library that there are no threads, so there must be none inside at the same time."""
    ring = ring_of(faulty, kind)
    sealed = [message(kind) for _ in range(4)]
    faults: list[BaseException] = []

    def work() -> None:
        try:
            for number in range(12):
                assert open_enveloped(sealed[number % 4], ring.keys).content == TEXT
                ring.keys[0].sign(b"data", digest="sha256")
        except BaseException as fault:
            faults.append(fault)

    def disturb() -> None:
        for _ in range(8):
            faulty.order("C_DeriveKey" if kind == "p256" else "C_DecryptInit", SESSION_HANDLE_INVALID, until="once")
            load_key_ring(None, None, faulty.settings)

    threads = [*(threading.Thread(target=work) for _ in range(6)), threading.Thread(target=disturb)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    assert faults == []
    assert not faulty.overlapped


def test_who_waits_too_long_is_told_that_the_token_is_busy(
    faulty: FaultyToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring = ring_of(faulty)
    key = ring.keys[0]
    assert isinstance(key, TokenKey)
    monkeypatch.setattr(token_connection, "BUSY_AFTER_SECONDS", 0.05)
    with holding(key), pytest.raises(KeyUnavailableError, match="has not answered"):
        open_enveloped(message(), ring.keys)
    assert opens(ring)


@contextmanager
def holding(key: TokenKey) -> Iterator[None]:
    """Keep the library as a hanging call would."""
    lock = key.connection._library.lock
    assert lock.acquire(timeout=5)
    try:
        yield
    finally:
        lock.release()


def test_nothing_secret_in_representations_and_errors(faulty: FaultyToken) -> None:
    ring = ring_of(faulty)
    key = ring.keys[0]
    assert isinstance(key, TokenKey)
    faulty.order("C_Decrypt", VENDOR)
    with pytest.raises(TokenOperationError) as caught:
        key.decrypt_rsa_pkcs1v15(b"x" * 256)
    texts = [repr(key), repr(key.connection), repr(key.known_answer), str(caught.value), repr(faulty.settings)]
    assert not any(PIN in text for text in texts)
    assert str(caught.value) == "PKCS11Error 0x80000001"
    assert key.known_answer is not None
    assert repr(key.known_answer.answer) not in repr(key.known_answer)


def test_without_python_pkcs11(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = builtins.__import__
    monkeypatch.delitem(sys.modules, "pkcs11", raising=False)

    def absent(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "pkcs11":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(sys, "meta_path", [_Absent(), *sys.meta_path])
    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ConfigurationError, match=r"pip install -e '\.\[hsm\]'"):
        load_key_ring(None, None, TokenSettings(tmp_path / "library.so", "clinic"))


class _Absent:
    """A finder that knows nothing of python-pkcs11."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] == "pkcs11":
            raise ImportError(name)


def test_nothing_of_pkcs11_is_imported_without_a_token(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from gateway.keys.loading import load_key_ring; "
        f"load_key_ring(Path({str(tmp_path)!r})); sys.exit('pkcs11' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=60, env=dict(os.environ))
    assert done.returncode == 0
