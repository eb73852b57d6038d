"""A real PKCS#11 token for tests: SoftHSM in a scratch folder, and a library in front of it that fails on demand.

Everything is skipped by name when SoftHSM (package ``softhsm2``) or python-pkcs11 is absent, and what needs the
library in front of it when there is no C compiler.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.keys import token_connection
from gateway.keys.development_pki import Issued
from gateway.keys.loading import TokenSettings

PIN = "4711-clinic"
LABEL = "clinic"
_LIBRARIES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
)


def softhsm_library() -> Path:
    """The library of SoftHSM; skips when it or python-pkcs11 is not here."""
    if importlib.util.find_spec("pkcs11") is None:
        pytest.skip("python-pkcs11 is not installed (the extra hsm)")
    for path in filter(None, (os.environ.get("SOFTHSM2_LIBRARY"), *_LIBRARIES)):
        if Path(path).is_file() and shutil.which("softhsm2-util") is not None:
            return Path(path)
    pytest.skip("SoftHSM is not here (package softhsm2)")


@dataclass
class SoftToken:
    """One token of SoftHSM. ``library`` is what the gateway is told to load."""

    folder: Path
    library: Path

    @property
    def settings(self) -> TokenSettings:
        return TokenSettings(self.library, LABEL, self.pin_file())

    def pin_file(self, pin: str = PIN) -> Path:
        file = self.folder / "pin"
        file.write_text(pin + "\n")
        file.chmod(0o600)
        return file

    def run(self, *words: str) -> None:
        program = ["softhsm2-util", "--module", str(softhsm_library()), *words]
        done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr

    def make(self, label: str = LABEL) -> None:
        self.run("--init-token", "--free", "--label", label, "--so-pin", "so-pin-0815", "--pin", PIN)

    def put(
        self, issued: Issued, key_id: str, *, label: str = "key", certificate: bool = True, derive: bool = False
    ) -> None:
        """Put a key on the token with SoftHSM's own program, and its certificate beside it."""
        file = self.folder / "import.pem"
        file.write_bytes(issued.key_pem)
        words = ("--import", str(file), "--token", LABEL, "--label", label, "--id", key_id, "--pin", PIN)
        self.run(*words)
        file.unlink()
        if derive:
            self.set_attributes(key_id, DERIVE=True)  # softhsm2-util leaves it out
        if certificate:
            self.put_certificate(issued.certificate_der, key_id)

    def put_certificate(self, der: bytes, key_id: str) -> None:
        pkcs11: Any = importlib.import_module("pkcs11")
        attribute = pkcs11.Attribute
        template = {
            attribute.CLASS: pkcs11.ObjectClass.CERTIFICATE,
            attribute.CERTIFICATE_TYPE: pkcs11.CertificateType.X_509,
            attribute.TOKEN: True,
            attribute.ID: bytes.fromhex(key_id),
            attribute.LABEL: key_id,
            attribute.SUBJECT: b"0\x00",
            attribute.VALUE: der,
        }
        with self.session() as session:
            session.create_object(template)

    @contextmanager
    def session(self) -> Iterator[Any]:
        """A session of our own, outside of the gateway's connection; it ends what the gateway has."""
        pkcs11: Any = importlib.import_module("pkcs11")
        forget_connections()
        session = pkcs11.lib(str(self.library.resolve())).get_token(token_label=LABEL).open(rw=True, user_pin=PIN)
        try:
            yield session
        finally:
            session.close()
            forget_connections()

    def set_attributes(self, key_id: str, **attributes: bool) -> None:
        """Change what a private key may do."""
        pkcs11: Any = importlib.import_module("pkcs11")
        template = {
            pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PRIVATE_KEY,
            pkcs11.Attribute.ID: bytes.fromhex(key_id),
        }
        with self.session() as session:
            (key,) = session.get_objects(template)
            for name, value in attributes.items():
                key[pkcs11.Attribute[name]] = value


@dataclass
class FaultyToken(SoftToken):
    """The same behind a library that fails on demand: see faulty_token.c."""

    orders: Path = Path()

    def order(self, name: str, code: int = 0, *, until: str = "") -> None:
        """Let a call fail ``until`` it did "once", a new "session", a new start of the "library", or its recall."""
        (self.orders / name).write_text(f"{code:x} {until}")

    def recall(self, name: str) -> None:
        (self.orders / name).unlink(missing_ok=True)

    def calls(self, name: str) -> int:
        file = self.orders / "calls"
        return file.read_text().split().count(name) if file.exists() else 0

    @property
    def overlapped(self) -> bool:
        return (self.orders / "overlap").exists()


def forget_connections() -> None:
    """End every library that was loaded, as the end of the process would, so that the next one reads its settings."""
    pkcs11: Any = importlib.import_module("pkcs11")
    token_connection._connections.clear()
    token_connection._libraries.clear()
    for library in pkcs11._loaded.values():
        if library.initialized:
            library.finalize()


@contextmanager
def soft_token(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SoftToken]:
    """A token without keys."""
    library = softhsm_library()
    _configure(folder, monkeypatch)
    token = SoftToken(folder, library)
    forget_connections()
    token.make()
    try:
        yield token
    finally:
        forget_connections()


@contextmanager
def faulty_token(folder: Path, built: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyToken]:
    """A token without keys behind the library that fails on demand, which is ``built`` once."""
    monkeypatch.setenv("FAULTY_TOKEN_LIBRARY", str(softhsm_library()))
    orders = folder / "orders"
    orders.mkdir()
    monkeypatch.setenv("FAULTY_TOKEN_DIR", str(orders))
    _configure(folder, monkeypatch)
    forget_connections()
    token = FaultyToken(folder, built, orders)
    token.make()
    try:
        yield token
    finally:
        for left in ("gone", "final"):
            token.recall(left)
        forget_connections()


def build_faulty_library(folder: Path) -> Path:
    """Compile the library that fails on demand; skips when there is no C compiler."""
    softhsm_library()
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler is here")
    library = folder / "faulty_token.so"
    source = Path(__file__).with_name("faulty_token.c")
    done = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return library


def _configure(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = folder / "tokens"
    tokens.mkdir()
    settings = folder / "softhsm2.conf"
    settings.write_text(f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(settings))
