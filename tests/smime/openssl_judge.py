"""The openssl command as a second judge: decrypts with the recipient's key, verifies against the community's anchor.

It knows nothing of Direct: no sender is bound, no envelope compared, and weak algorithms pass.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.smime.clinic import Clinic
from tests.unit.sta.trust_world import NOW


@dataclass(frozen=True)
class Second:
    """What openssl made of a message: the signed content, or its complaint."""

    content: bytes | None
    complaint: str

    @property
    def accepted(self) -> bool:
        return self.content is not None


class OpenSSLJudge:
    """One folder with the keys and the anchor."""

    def __init__(self, folder: Path, clinic: Clinic) -> None:
        self.folder = folder
        self.clinic = clinic
        (folder / "ca.pem").write_bytes(clinic.world.community.identity.certificate_pem)
        self._kinds: set[str] = set()

    def judge(self, envelope: bytes, kind: str) -> Second:
        """Decrypt the CMS object (DER or BER) and verify what is inside."""
        if kind not in self._kinds:
            self.clinic.recipient(kind).write(self.folder, kind)
            self._kinds.add(kind)
        (self.folder / "in.der").write_bytes(envelope)
        key = ("-recip", f"{kind}.cert.pem", "-inkey", f"{kind}.key.pem")
        opened = self._run("-decrypt", "-binary", "-inform", "DER", "-in", "in.der", *key, "-out", "opened")
        if opened:
            return Second(None, opened)
        at = str(int(NOW.timestamp()))
        trust = ("-CAfile", "ca.pem", "-purpose", "any", "-attime", at)
        # Its reader of multiparts turns CRLF into LF, and only without -binary it turns them back for the digest.
        verified = self._run("-verify", "-inform", "SMIME", "-in", "opened", *trust, "-out", "content")
        return Second(None, verified) if verified else Second((self.folder / "content").read_bytes(), "")

    def _run(self, *arguments: str) -> str:
        """Nothing when it went well, else the last of openssl's errors."""
        done = subprocess.run(
            ["openssl", "cms", *arguments], cwd=self.folder, capture_output=True, check=False, timeout=60
        )
        if done.returncode == 0:
            return ""
        errors = [line for line in done.stderr.decode(errors="replace").splitlines() if ":error:" in line]
        return errors[-1].split(":error:", 1)[1] if errors else f"exit status {done.returncode}"
