"""What an operator would script instead: ``openssl cms`` twice for each message, and Dovecot's delivery agent.

    openssl cms -decrypt | openssl cms -verify | dovecot-lda

Each message starts from a file: whatever receives it by SMTP (Postfix, as a rule) comes on top. The chain of the signer
is verified; identity, revocation, routing and trust per recipient are not looked at, no evidence is kept, no duplicate
is found, and the raw message is not kept. The delivery is synced (``mail_fsync = always``) into a Maildir. As many run
at once as there are cores. A machine that lacks a part of it leaves the row out and says which.
"""

from __future__ import annotations

import os
import pwd
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.bench.gateways import Site
from tests.bench.mail_pool import MailPool, inner_of
from tests.bench.world import SENDER, BenchError

NAME = "openssl cms | openssl cms | dovecot-lda"
_LDA = Path("/usr/lib/dovecot/dovecot-lda")
_USER = "nobody"


@dataclass(frozen=True)
class PeerMeasured:
    """CPU of all its processes, and wall time, of one message, in seconds."""

    cpu: float
    wall: float


def missing_peer() -> str | None:
    """What this machine lacks, or None."""
    if shutil.which("openssl") is None:
        return "the openssl command is not installed"
    if not _LDA.exists():
        return f"{_LDA} (dovecot-core) is not installed"
    return None


def measure_peer(site: Site, pool: MailPool, count: int) -> PeerMeasured:
    """Deliver the first messages of a pool. Raises BenchError when one of them does not arrive as it was sent."""
    with tempfile.TemporaryDirectory(prefix="bench-peer-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        script = _prepare(site, folder)
        files = []
        for number, raw in enumerate(pool.messages(count)):
            files.append(folder / f"{number}.eml")
            files[-1].write_bytes(raw)
        _deliver(script, files[0])
        began, used = time.monotonic(), _children()
        with ThreadPoolExecutor(os.cpu_count()) as workers:
            list(workers.map(lambda file: _deliver(script, file), files[1:]))
        measured = PeerMeasured((_children() - used) / (count - 1), (time.monotonic() - began) / (count - 1))
        _compare(folder / "home", pool, site.address, count)
        return measured


def _prepare(site: Site, folder: Path) -> Path:
    identities = site.template.directory / "certs" / "identities"
    anchors = site.template.directory / "certs" / "anchors" / "partner.pem"
    home = folder / "home"
    home.mkdir()
    user = pwd.getpwnam(_USER) if os.getuid() == 0 else pwd.getpwuid(os.getuid())
    os.chown(home, user.pw_uid, user.pw_gid)
    config = folder / "dovecot.conf"
    config.write_text(
        f"base_dir = {folder}/run\nlog_path = {home}/log\nmail_location = maildir:{home}/Maildir\n"
        f"mail_fsync = always\npostmaster_address = postmaster@clinic.example\nhostname = clinic.example\n"
        f"protocols =\nssl = no\n"
    )
    lower = f"setpriv --reuid={user.pw_uid} --regid={user.pw_gid} --clear-groups " if os.getuid() == 0 else ""
    script = folder / "deliver.sh"
    script.write_text(
        "set -e -o pipefail\n"
        f"openssl cms -decrypt -in \"$1\" -inkey '{identities / (site.address + '.key.pem')}' "
        f"| openssl cms -verify -purpose any -CAfile '{anchors}' 2>/dev/null "
        f"| {lower}env HOME='{home}' USER={user.pw_name} {_LDA} -c '{config}' -f {SENDER}\n"
    )
    return script


def _deliver(script: Path, file: Path) -> None:
    done = subprocess.run(
        ["bash", str(script), str(file)], stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60
    )
    if done.returncode:
        log = script.parent / "home" / "log"
        told = log.read_text() if log.exists() else ""
        raise BenchError(f"{NAME} failed: {done.stderr.decode('utf-8', 'replace').strip()} {told}".strip())


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _compare(home: Path, pool: MailPool, address: str, count: int) -> None:
    found: Sequence[Path] = list((home / "Maildir" / "new").iterdir())
    if len(found) != count:
        raise BenchError(f"{NAME} delivered {len(found)} messages, and not {count}")
    wanted = inner_of(pool.size, 0, address).replace(b"\r\n", b"\n").strip()
    if not any(wanted in file.read_bytes().replace(b"\r\n", b"\n") for file in found):
        raise BenchError(f"{NAME} delivered something else than was sent")
