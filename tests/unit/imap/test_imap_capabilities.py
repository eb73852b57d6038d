"""Each capability that is advertised does something: one exchange for each, and none without an exchange here."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.unit.imap.imap_harness import LOGIN, MULTIPART, PASSWORD, RawClient, bench, plain_message, tls_contexts
from tests.unit.imap.mutable_harness import mutable_bench

Exchange = Callable[[RawClient], Awaitable[None]]


def answers(command: str, *expected: bytes) -> Exchange:
    """The command succeeds, and each of these stands in one of its responses."""

    async def exchange(client: RawClient) -> None:
        whole = await client.cmd(command)
        assert whole[-1].startswith(b"OK"), whole
        for part in expected:
            assert any(part in line for line in whole), (part, whole)

    return exchange


async def idle(client: RawClient) -> None:
    await client.send(b"i IDLE\r\n")
    assert (await client.response()).startswith(b"+")
    await client.send(b"DONE\r\n")
    assert await client.until(b"i") == [b"i OK IDLE completed"]


async def unselect(client: RawClient) -> None:
    await client.ok("UNSELECT")
    assert (await client.cmd("CHECK"))[-1].startswith(b"BAD")
    await client.ok("SELECT INBOX")


async def literal_minus(client: RawClient) -> None:
    await client.ok(b"STATUS {5+}\r\nINBOX (MESSAGES)")


async def qresync(client: RawClient) -> None:
    await client.ok("ENABLE QRESYNC")
    await client.ok("UID FETCH 1:* FLAGS (CHANGEDSINCE 1 VANISHED)")


async def search_results(client: RawClient) -> None:
    await client.ok("SEARCH RETURN (SAVE) 2")
    assert await client.ok("FETCH $ UID") == [b"* 2 FETCH (UID 2)"]


async def rights(client: RawClient) -> None:
    """RIGHTS=texk: MYRIGHTS would name those letters; here nobody has one of them."""
    (answer,) = await client.ok("MYRIGHTS INBOX")
    assert not set("texk").intersection(answer.split()[-1].decode())


IN_A_MAILBOX: dict[str, Exchange] = {
    "IMAP4rev1": answers("FETCH 1 (FLAGS)", b"* 1 FETCH (FLAGS ("),
    "LITERAL-": literal_minus,
    "ID": answers("ID NIL", b"* ID ("),
    "ENABLE": answers("ENABLE X-NOTHING", b"* ENABLED"),
    "IDLE": idle,
    "NAMESPACE": answers("NAMESPACE", b'* NAMESPACE (("" "/")) NIL NIL'),
    "UIDPLUS": answers("UID EXPUNGE 1:*"),
    "UNSELECT": unselect,
    "CHILDREN": answers('LIST "" %', b"\\HasChildren", b"\\HasNoChildren"),
    "SPECIAL-USE": answers('LIST (SPECIAL-USE) "" "*" RETURN (SPECIAL-USE)'),
    "LIST-EXTENDED": answers('LIST (SUBSCRIBED REMOTE) "" (INBOX %) RETURN (CHILDREN)', b"\\Subscribed"),
    "LIST-STATUS": answers('LIST "" INBOX RETURN (STATUS (MESSAGES))', b"* STATUS INBOX (MESSAGES 2)"),
    "STATUS=SIZE": answers("STATUS INBOX (SIZE)", b"* STATUS INBOX (SIZE "),
    "ESEARCH": answers("SEARCH RETURN (MIN MAX ALL COUNT) ALL", b" MIN 1 MAX 2 ALL 1:2 COUNT 2"),
    "SEARCHRES": search_results,
    "CONDSTORE": answers("FETCH 1 (FLAGS) (CHANGEDSINCE 1)", b" MODSEQ ("),
    "QRESYNC": qresync,
    "OBJECTID": answers("FETCH 1 (EMAILID THREADID)", b"EMAILID (m00001) THREADID NIL"),
    "ACL": answers("GETACL INBOX", b"* ACL INBOX "),
    "RIGHTS=texk": rights,
}


async def advertised(client: RawClient) -> list[str]:
    (line,) = await client.ok("CAPABILITY")
    names = line.decode().removeprefix("* CAPABILITY ").split()
    assert len(names) == len(set(names))
    return names


async def test_what_is_advertised_after_login_works(tmp_path: Path) -> None:
    """RFC 3501 6.1.1."""
    async with bench(tmp_path, contents=[MULTIPART, plain_message(2)]) as here, here.client() as client:
        await client.login()
        names = await advertised(client)
        assert set(names) - {"SASL-IR"} == IN_A_MAILBOX.keys()
        await client.ok("SELECT INBOX")
        for name in names:
            if name in IN_A_MAILBOX:
                await IN_A_MAILBOX[name](client)


async def test_what_is_advertised_before_login_works(tmp_path: Path) -> None:
    """STARTTLS, LOGINDISABLED, AUTH=PLAIN and SASL-IR; nothing that needs a login is missing once there is TLS."""
    token = base64.b64encode(b"\0" + LOGIN.encode() + b"\0" + PASSWORD.encode())
    async with bench(tmp_path) as here, here.client(tls=False) as client:
        clear = await advertised(client)
        assert {"STARTTLS", "LOGINDISABLED"} <= set(clear)
        assert (await client.cmd("LOGIN a b"))[-1].startswith(b"NO [PRIVACYREQUIRED]")
        await client.ok("STARTTLS")
        await client.writer.start_tls(tls_contexts()[1], server_hostname="localhost")
        names = await advertised(client)
        assert {"AUTH=PLAIN", "SASL-IR"} <= set(names)
        assert not {"STARTTLS", "LOGINDISABLED"} & set(names)
        assert IN_A_MAILBOX.keys() <= set(names)
        await client.ok(b"AUTHENTICATE PLAIN " + token)


async def test_move_is_advertised_only_where_messages_can_leave(tmp_path: Path) -> None:
    """RFC 6851: absent from a store that keeps everything, where MOVE is refused."""
    async with mutable_bench(1) as here, here.selected() as client:
        assert set(await advertised(client)) - {"SASL-IR"} - IN_A_MAILBOX.keys() == {"MOVE"}
        await client.ok("CREATE Other")
        assert b"* 1 EXPUNGE" in await client.ok("MOVE 1 Other")
    async with bench(tmp_path, contents=[plain_message(1)]) as there, there.selected() as client:
        assert "MOVE" not in await advertised(client)
        assert (await client.cmd("MOVE 1 INBOX"))[-1].startswith(b"NO")


async def test_what_is_not_advertised_is_not_there(tmp_path: Path) -> None:
    """Those that are left out on purpose are unknown, not half there."""
    async with bench(tmp_path, contents=[plain_message(1)]) as here, here.selected() as client:
        for command in (
            "COMPRESS DEFLATE",
            "SORT (DATE) UTF-8 ALL",
            "THREAD REFERENCES UTF-8 ALL",
            "GETQUOTAROOT INBOX",
            "NOTIFY NONE",
            "XLIST",
            "REPLACE 1 INBOX {3+}\r\nabc",
            "SEARCH RETURN (PARTIAL 1:2) ALL",
            "SEARCH OLDER 10",
            "SEARCH FUZZY SUBJECT a",
            "FETCH 1 BINARY[1]",
            "FETCH 1 PREVIEW",
            "FETCH 1 SAVEDATE",
            "STATUS INBOX (DELETED)",
            "STATUS INBOX (APPENDLIMIT)",
            'LIST "" "*" RETURN (MYRIGHTS)',
        ):
            assert (await client.cmd(command))[-1].startswith(b"BAD"), command
