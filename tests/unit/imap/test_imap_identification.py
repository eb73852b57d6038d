"""ID (RFC 2971): parsed strictly, answered with the name of the server alone, and logged as a known program or not."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.unit.imap.imap_harness import bench

ANSWER = [b'* ID ("name" "direct-gateway")']


@pytest.mark.parametrize(
    ("arguments", "program"),
    [
        ("NIL", "other"),
        ("()", "other"),
        ('("name" "Thunderbird" "version" "153.0")', "thunderbird"),
        ('("version" "1" "NAME" "NeoMutt 2022")', "neomutt"),
        ('("name" "Mac OS X Mail")', "mac_os_x_mail"),
        ('("name" "Jane Roe, born 1970" "vendor" "jane@direct.example.net")', "other"),
        ('("name" NIL)', "other"),
        ('("name" {4+}\r\nmutt)', "mutt"),
    ],
)
async def test_what_a_client_says_of_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, arguments: str, program: str
) -> None:
    """Only a word of the gateway's own list reaches the log: anything may be in an ID."""
    caplog.set_level(logging.INFO)
    async with bench(tmp_path) as here, here.client() as client:
        assert await client.ok(f"ID {arguments}") == ANSWER
    assert "client_identified" in caplog.text
    assert f'client="{program}"' in caplog.text.replace("'", '"') or f"client={program}" in caplog.text
    assert "Jane" not in caplog.text
    assert "jane@" not in caplog.text


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "x",
        "name",
        '("name")',
        '("name" "x"',
        '(name "x")',
        '("name"  "x")',
        '("name" "x") y',
        '("' + "n" * 31 + '" "x")',
        '("name" "' + "x" * 1025 + '")',
        "(" + " ".join(f'"f{n}" "x"' for n in range(31)) + ")",
    ],
)
async def test_bad_forms(tmp_path: Path, arguments: str) -> None:
    """RFC 2971 section 3.3 and 4: 30 fields, names of 30 and values of 1,024 octets."""
    async with bench(tmp_path) as here, here.client() as client:
        assert (await client.cmd(f"ID {arguments}"))[-1].startswith(b"BAD")
