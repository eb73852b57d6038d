"""The certificates of the evidence, described for people and written to files."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gateway.core.errors import InputError

PEM_LINE_CHARS = 64


def seen_certificates(verdict: dict[str, Any], ders: Sequence[bytes]) -> list[dict[str, str]]:
    """Describe each certificate: role, subject, issuer, SHA-256 and validity. What cannot be read says so."""
    from gateway.sta.certificates import Certificate, CertificateError  # noqa: PLC0415 - see gateway.cli.session

    signer = (verdict.get("signer") or {}).get("sha256")
    on_a_path = {sha256 for trust in verdict["trust"] for sha256 in trust["chain_sha256"]}
    described = []
    for sha256, der in zip(verdict["certificates"], ders, strict=True):
        role = "signer" if sha256 == signer else "on the path" if sha256 in on_a_path else "seen"
        one = {"role": role, "subject": "(cannot be read)", "issuer": "", "not_before": "", "not_after": ""}
        try:
            facts = Certificate(der).as_signer("")
        except CertificateError:
            pass
        else:
            one |= {
                "subject": facts.subject,
                "issuer": facts.issuer,
                "not_before": facts.not_before,
                "not_after": facts.not_after,
            }
        described.append(one | {"sha256": sha256})
    return described


def write_certificates(folder: Path, ders: Sequence[bytes]) -> list[Path]:
    """Write each as ``SHA256.pem`` into the folder, which is made when it is missing; returns the paths.

    Raises:
        InputError: the folder is none, or cannot be made.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--certificates: {folder} is not a folder")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise InputError(f"--certificates: cannot make {folder}: {exc.strerror}") from None
    written = []
    for der in ders:
        path = folder / f"{hashlib.sha256(der).hexdigest()}.pem"
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(_pem(der))
        written.append(path)
    return written


def _pem(der: bytes) -> bytes:
    text = base64.b64encode(der)
    lines = [text[start : start + PEM_LINE_CHARS] for start in range(0, len(text), PEM_LINE_CHARS)]
    return b"\n".join([b"-----BEGIN CERTIFICATE-----", *lines, b"-----END CERTIFICATE-----", b""])
