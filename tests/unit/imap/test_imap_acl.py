"""ACL (RFC 4314): who may know whose rights. They are granted by the operator's command, never over IMAP."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.ports import UnitOfWork
from tests.unit.imap.imap_harness import Bench, bench
from tests.unit.imap.mutable_harness import mutable_bench


async def grants(here: Bench, *granted: tuple[str, str, str]) -> None:
    """(login, folder, rights) on the mailbox of INBOX; accounts that are not there are made."""
    practice = here.practice

    def work(unit: UnitOfWork) -> None:
        for login, folder, rights in granted:
            account = unit.accounts.by_login(login)
            account_id = account.id if account else unit.accounts.add(login, "x", practice.clock.now())
            unit.accounts.grant(account_id, folder, practice.inbox_id, rights)

    await practice.store.write(work)


async def test_somebody_without_a_sees_himself(tmp_path: Path) -> None:
    """4, GETACL: truthful, and silent about other people."""
    async with bench(tmp_path) as here, here.client() as client:
        await grants(here, ("dr.b", "INBOX", "lrsw"), ("ops", "All", "lra"))
        await client.login()
        assert await client.ok("GETACL inbox") == [b"* ACL INBOX front.desk lrsw"]
        assert await client.ok("MYRIGHTS INBOX") == [b"* MYRIGHTS INBOX lrsw"]


async def test_somebody_with_a_sees_everybody(tmp_path: Path) -> None:
    """The newest grant of each folder counts, and two folders of one mailbox are one mailbox."""
    async with bench(tmp_path) as here, here.client() as client:
        await grants(
            here,
            ("front.desk", "INBOX", "lrswa"),
            ("dr.b", "INBOX", "lrsw"),
            ("dr.b", "INBOX", "lr"),
            ("dr.b", "Desk", "ls"),
            ("gone", "INBOX", "lrsw"),
            ("gone", "INBOX", ""),
            ("a b\\c", "INBOX", "l"),
            ("ümlaut", "INBOX", "r"),
        )
        await client.login()
        (answer,) = await client.ok("GETACL INBOX")
        assert answer == '* ACL INBOX "a b\\\\c" l dr.b lrs front.desk lrswa {7}\r\nümlaut r'.encode()


async def test_listrights_tells_what_could_be_granted(tmp_path: Path) -> None:
    """4, LISTRIGHTS: nothing is always there, each right comes by itself; ``i`` only where sent mail is kept."""
    async with bench(tmp_path) as here, here.client() as client:
        await client.login()
        assert await client.ok("LISTRIGHTS INBOX front.desk") == [b'* LISTRIGHTS INBOX front.desk "" l r s w a']
        assert await client.ok('LISTRIGHTS inbox "Front.Desk"') == [b'* LISTRIGHTS INBOX Front.Desk "" l r s w a']
        for other in ("ops", "nobody-of-this-name", "anyone"):
            assert (await client.cmd(f"LISTRIGHTS INBOX {other}"))[-1].startswith(b"NO [NOPERM]")
        await grants(here, ("front.desk", "INBOX", "lria"))
        assert await client.ok("LISTRIGHTS INBOX nobody-of-this-name") == [
            b'* LISTRIGHTS INBOX nobody-of-this-name "" l r s w i a'
        ]


@pytest.mark.parametrize("rights", ["lrsw", "lrswa"])
@pytest.mark.parametrize(
    "command", ["SETACL INBOX dr.b lrs", "SETACL INBOX dr.b +t", "SETACL INBOX dr.b -l", "DELETEACL INBOX dr.b"]
)
async def test_rights_are_not_changed_here(tmp_path: Path, command: str, rights: str) -> None:
    async with bench(tmp_path) as here, here.client() as client:
        await grants(here, ("front.desk", "INBOX", rights), ("dr.b", "INBOX", "lr"))
        await client.login()
        assert (await client.cmd(command))[-1].startswith(b"NO [NOPERM]")
        granted = await here.practice.store.read(lambda unit: unit.accounts.granted_on(here.practice.inbox_id))
        assert granted == [("dr.b", "lr"), ("front.desk", rights)]


@pytest.mark.parametrize(
    "command",
    [
        "GETACL",
        "GETACL INBOX x",
        "LISTRIGHTS INBOX",
        "LISTRIGHTS INBOX a b",
        "SETACL INBOX a",
        "SETACL INBOX a LRS",
        "SETACL INBOX a lr s",
        "DELETEACL INBOX",
        "MYRIGHTS",
        "LISTRIGHTS INBOX {2+}\r\n\xff\xfe",
    ],
)
async def test_bad_forms(tmp_path: Path, command: str) -> None:
    """RFC 4314 section 6."""
    async with bench(tmp_path) as here, here.client() as client:
        await client.login()
        assert (await client.cmd(command.encode("latin-1")))[-1].startswith(b"BAD")


async def test_a_mailbox_of_others_is_not_there(tmp_path: Path) -> None:
    """5.3: whoever may not look a mailbox up is told what he is told of one that there is not."""
    async with bench(tmp_path) as here, here.client() as client:
        await client.login()
        for command in ("GETACL desk", "MYRIGHTS desk", "LISTRIGHTS desk a", "SETACL desk a l", "DELETEACL desk a"):
            assert (await client.cmd(command))[-1].startswith(b"NO [NONEXISTENT]")


async def test_rights_that_mean_nothing_here_are_not_shown(tmp_path: Path) -> None:
    """EP-29: whatever stands in a grant, nobody is shown that he may delete."""
    async with bench(tmp_path) as here, here.client() as client:
        await grants(here, ("front.desk", "INBOX", "lrswipkxte"))
        await client.login()
        assert await client.ok("MYRIGHTS INBOX") == [b"* MYRIGHTS INBOX lrswi"]
        assert await client.ok("GETACL INBOX") == [b"* ACL INBOX front.desk lrswi"]
    async with mutable_bench() as there, there.client() as client:
        await client.login()
        assert await client.ok("MYRIGHTS INBOX") == [b"* MYRIGHTS INBOX lrswipkxtea"]
