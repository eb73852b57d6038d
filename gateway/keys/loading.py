"""All keys of the gateway in one place: those of the folder and those of a token.

``load_key_ring`` is what the daemon and ``message verify`` call. Without a token nothing of PKCS#11 is imported.

To use a token (a hardware security module, a smart card): install the extra ``hsm``; set ``trust.pkcs11_module``
to the library that came with it, ``trust.pkcs11_token`` to its label and ``trust.pkcs11_pin_file`` to a file whose
first line is the PIN (mode 0600). How its keys find their certificates: :mod:`gateway.keys.token_identities`. How the
gateway takes the loss of a token: :mod:`gateway.keys.token_connection`.

Failure modes: :class:`ConfigurationError` that names the file, the setting or the token, and the mend;
:class:`KeyUnavailableError` for a token that is not there now.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path

from gateway.core.errors import ConfigurationError
from gateway.keys.key_files import KeyFolder, read_key_folder
from gateway.keys.key_ring import KeyRing

_MAX_PIN_FILE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class TokenSettings:
    """Where the token is: the settings of the same names."""

    module: Path
    label: str
    pin_file: Path | None = None


def load_key_ring(directory: Path | None, password: bytes | None = None, token: TokenSettings | None = None) -> KeyRing:
    """Read every identity of a folder, of a token, or of both.

    ``password`` opens encrypted key files and ``.p12`` files; those that are not encrypted are read without.

    Raises:
        ConfigurationError: a file cannot be used (see :func:`gateway.keys.key_files.read_key_folder`), or the token
            cannot (see :func:`gateway.keys.token_connection.connect`).
        KeyUnavailableError: the token does not answer now.
    """
    folder = read_key_folder(directory, password) if directory is not None else KeyFolder((), (), ())
    if token is None:
        if folder.on_token:
            raise ConfigurationError(
                f"the key of {folder.on_token[0].source} lies on a token; set trust.pkcs11_module and "
                "trust.pkcs11_token"
            )
        return KeyRing(folder.keys, folder.warnings)
    # Only here, so that a gateway without a token needs none of it.
    from gateway.keys.token_connection import connect  # noqa: PLC0415
    from gateway.keys.token_identities import find_identities  # noqa: PLC0415

    if not token.label:
        raise ConfigurationError("trust.pkcs11_module is set; set trust.pkcs11_token to the label of the token too")
    warnings = list(folder.warnings)
    connection = connect(token.module, token.label, read_pin(token.pin_file, warnings))
    keys, doubts, notes = find_identities(connection, folder.on_token)
    return KeyRing((*folder.keys, *keys), (*warnings, *doubts), notes)


def read_pin(path: Path | None, warnings: list[str]) -> str | None:
    """Read the PIN of a token; what is doubtful is added to the warnings. Raises ConfigurationError."""
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            mode = path.stat().st_mode
            lines = file.read(_MAX_PIN_FILE_BYTES).splitlines()
    except OSError as error:
        raise ConfigurationError(f"cannot read trust.pkcs11_pin_file {path}: {error.strerror}") from None
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        warnings.append(f"{path} can be read by others; run: chmod 600 {path}")
    try:
        pin = lines[0].decode() if lines else ""
    except UnicodeDecodeError:
        pin = ""
    if not pin:
        raise ConfigurationError(f"trust.pkcs11_pin_file {path} must have the PIN of the token in its first line")
    return pin
