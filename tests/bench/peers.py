"""The programs of others that the gateway is measured against, compiled for the run.

``openssl-cms`` needs a C compiler and the headers of OpenSSL, ``bouncy-castle`` a JDK and the jars that the
interoperability tests use. What is missing is said by name and the row is left out; a peer that does not compile
although everything is there is a fault.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.bench.rows import ProgramRow
from tests.bench.world import BenchError, World
from tests.support import bouncy_castle

PEERS = ("openssl-cms", "bouncy-castle")
JAVA_WARM_SECONDS = 2
_HERE = Path(__file__).parent


def compiler() -> str | None:
    """The C compiler."""
    return shutil.which("gcc") or shutil.which("cc")


def missing(name: str) -> str | None:
    """What this machine lacks for that peer, or None."""
    if name == "bouncy-castle":
        return bouncy_castle.missing()
    cc = compiler()
    if cc is None:
        return "gcc is not installed"
    probe = subprocess.run([cc, "-E", "-"], input=b"#include <openssl/cms.h>\n", capture_output=True, check=False)
    return "the headers of OpenSSL (libssl-dev) are not installed" if probe.returncode else None


def compile_peer(name: str, folder: Path) -> list[str]:
    """Compile the peer into the folder and return the command that starts it, without its arguments.

    Raises:
        BenchError: it does not compile.
    """
    if name == "openssl-cms":
        program = folder / "openssl_cms"
        _run([compiler() or "cc", "-O2", "-o", str(program), str(_HERE / "openssl_cms.c"), "-lcrypto"])
        return [str(program)]
    classpath = ":".join(map(str, bouncy_castle.JARS))
    _run(["javac", "-cp", classpath, "-d", str(folder), str(_HERE / "BouncyCastleUnwrap.java")])
    return ["java", "-cp", f"{folder}:{classpath}", "BouncyCastleUnwrap"]


def start_peer(name: str, command: Sequence[str], world: World, sizes: Sequence[str]) -> ProgramRow:
    """Start a compiled peer with the messages of those sizes in its memory."""
    messages = [f"{size}={world.message(size)}" for size in sizes]
    arguments = [str(world.recipient_key), str(world.recipient_certificate), *messages]
    warm = JAVA_WARM_SECONDS if name == "bouncy-castle" else 0
    return ProgramRow(name, [*command, *arguments], warm_seconds=warm)


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise BenchError(f"{command[0]} failed: {done.stderr.strip()}")
