"""The commands of docs/first-message.md, run as they stand, with the real daemon."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.gateway_process import Practice, wait_for

ROOT = Path(__file__).parents[2]


def test_the_commands_of_the_document_bring_a_message_into_the_inbox(tmp_path: Path) -> None:
    for program in ("openssl", "curl"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    practice = Practice.make(tmp_path / "practice", domain="direct.example.org", addresses=("front-desk",))
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs/first-message.md").read_text(), re.DOTALL)
    script = "set -eu\n" + "\n".join(blocks)
    assert "smtp://localhost:2525" in script
    script = script.replace("localhost:2525", f"localhost:{practice.smtp_port}")
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    practice.start()
    try:
        done = subprocess.run(
            ["sh", "-c", script], cwd=practice.directory, capture_output=True, text=True, timeout=60, check=False,
            env=os.environ | {"PATH": programs, "DIRECTGW_CONFIG": str(practice.directory)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        shown = wait_for(practice.inbox, what="the message in the inbox")
    finally:
        practice.stop()
    assert [message.splitlines()[-1] for message in shown] == [b"It works."]
