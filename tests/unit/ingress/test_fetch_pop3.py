"""POP3 against a scripted server: what is fetched byte for byte, what is bounded, and what is never said."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest

from gateway.core.fetching import FetchState, ItemTrouble
from gateway.ingress import pop3_fetch
from tests.unit.ingress.fetch_harness import desk_in, mail


@dataclass
class ScriptedPOP3:
    """Honest, but where ``answers`` has something for the command."""

    messages: dict[str, bytes] = field(default_factory=dict)
    answers: dict[str, bytes] = field(default_factory=dict)
    capabilities: bytes = b"SASL PLAIN XOAUTH2\r\nUIDL\r\n"
    password: str = "good"
    before_quit: Callable[[], None] = lambda: None
    said: list[str] = field(default_factory=list)
    port: int = 0
    sessions: list[asyncio.StreamWriter] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self._server.close()
        for writer in self.sessions:
            writer.transport.abort()
        while self.sessions:
            await asyncio.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        uids, deleted = list(self.messages), set()
        self.sessions.append(writer)
        writer.write(self.answers.get("greeting", b"+OK hello\r\n"))
        with contextlib.suppress(ConnectionError):
            while line := (await reader.readline()).decode("utf-8", "replace").strip():
                self.said.append(line)
                name, *words = line.split()
                if name in self.answers:
                    writer.write(self.answers[name])
                elif name == "CAPA":
                    writer.write(b"+OK\r\n" + self.capabilities + b".\r\n")
                elif name == "AUTH":
                    writer.write(b"+ \r\n")
                    given = (await reader.readline()).decode().strip()
                    import base64

                    good = base64.b64decode(given).decode().endswith(f"\0{self.password}")
                    writer.write(b"+OK in\r\n" if good else b"-ERR [AUTH] canary\r\n")
                elif name == "PASS":
                    writer.write(b"+OK in\r\n" if words == [self.password] else b"-ERR [AUTH] canary\r\n")
                elif name == "UIDL":
                    listed = b"".join(b"%d %s\r\n" % (n, uid.encode()) for n, uid in enumerate(uids, 1))
                    writer.write(b"+OK\r\n" + listed + b".\r\n")
                elif name == "LIST":
                    sizes = (len(self.messages[uid]) for uid in uids)
                    writer.write(b"+OK\r\n" + b"".join(b"%d %d\r\n" % e for e in enumerate(sizes, 1)) + b".\r\n")
                elif name == "RETR":
                    body = self.messages[uids[int(words[0]) - 1]]
                    lines = (b"." + one if one.startswith(b".") else one for one in body.splitlines(keepends=True))
                    writer.write(b"+OK\r\n" + b"".join(lines) + b".\r\n")
                elif name == "DELE":
                    deleted.add(uids[int(words[0]) - 1])
                    writer.write(b"+OK\r\n")
                elif name == "QUIT":
                    self.before_quit()
                    for uid in deleted:
                        self.messages.pop(uid, None)
                    writer.write(b"+OK bye\r\n")
                else:
                    writer.write(b"+OK\r\n")
                await writer.drain()
        writer.transport.abort()
        self.sessions.remove(writer)


@contextlib.asynccontextmanager
async def both(folder: Path, **options: Any) -> Any:
    async with ScriptedPOP3() as server:
        with desk_in(folder, server.port, **{"protocol": "pop3", "after": "leave", **options}) as desk:
            yield server, desk


async def test_dots_and_empty_lines_come_out_as_they_were(tmp_path: Path) -> None:
    dotty = b".first\r\nTo: x\r\n\r\n.\r\n..\r\nend.\r\n\r\n"
    async with both(tmp_path) as (server, desk):
        server.messages = {"a": dotty, "b": mail(2)}
        status = await desk.look()
        assert desk.bodies == [dotty, mail(2)]
        assert status.error == ""
        assert not any(said.startswith("DELE") for said in server.said)
        server.messages = {"b": mail(2), "c": mail(3), "a": dotty}
        await desk.look()
        assert desk.bodies == [dotty, mail(2), mail(3)]


async def test_deletion_follows_the_commit_and_survives_a_broken_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The server never answers QUIT.
    monkeypatch.setattr(pop3_fetch, "_CLOSE_SECONDS", 0.3)
    async with both(tmp_path, after="delete") as (server, desk):
        server.messages = {"a": mail(1), "b": mail(2)}
        server.answers["QUIT"] = b""
        await desk.look()
        assert desk.bodies == [mail(1), mail(2)]
        assert set(server.messages) == {"a", "b"}, "without QUIT nothing is deleted"
        server.answers.clear()
        await desk.look()
        assert server.messages == {}
        said = len(server.said)
        await desk.look()
        await desk.look()
        assert desk.bodies == [mail(1), mail(2)]
        assert not any(line.startswith("DELE") for line in server.said[said:])


async def test_a_poison_message_holds_up_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.ingress.fetch_intake.PAUSE_SECONDS", 0.0)
    async with both(tmp_path) as (server, desk):
        server.messages = {"a": mail(1), "large": mail(2, size=2 << 20), "empty": b"", "d": mail(4)}
        status = await desk.look()
        assert desk.bodies == [mail(1), mail(4)]
        assert {(item.uid, item.trouble) for item in desk.troubled} == {
            ("large", ItemTrouble.TOO_LARGE),
            ("empty", ItemTrouble.UNREADABLE),
        }
        assert (status.aside, status.error) == (2, "")


@pytest.mark.parametrize(
    "answers",
    [
        {"greeting": b"220 smtp\r\n"},
        {"greeting": b"+OK" + b"x" * 100_000},
        {"UIDL": b"-ERR never heard of it\r\n"},
        {"UIDL": b"+OK\r\n1 a\r\n2\r\n.\r\n"},
        {"UIDL": b"+OK\r\n1 \xff\xfe\r\n.\r\n"},
        {"LIST": b"+OK\r\n" + b"x" * 100_000 + b"\r\n.\r"},
        {"RETR": b"+OK\r\n" + b"x" * 4_000_000},
        {"RETR": b"+OK\r\nnever an end\r\n"},
    ],
)
async def test_garbage_ends_the_session_within_bounds(
    tmp_path: Path, answers: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.ingress.pop3_fetch.SILENCE_SECONDS", 0.5)
    monkeypatch.setattr("gateway.ingress.pop3_fetch.CONNECT_SECONDS", 1.0)
    async with both(tmp_path) as (server, desk):
        server.messages = {"a": mail(1)}
        server.answers = answers
        status = await asyncio.wait_for(desk.look(), 15)
        assert status.state is FetchState.RETRYING
        assert desk.bodies == []
        server.answers = {}
        desk.store.write_blocking(lambda rows: [rows.fetching.retry(item, item.at) for item in desk.troubled])
        await desk.look()
        assert desk.bodies == [mail(1)]


@pytest.mark.parametrize("capabilities", [b"SASL PLAIN\r\n", b"USER\r\n"])
async def test_a_refused_login(tmp_path: Path, capabilities: bytes) -> None:
    async with both(tmp_path) as (server, desk):
        server.capabilities = capabilities
        assert (await desk.look()).state is FetchState.WAITING
        server.password = "changed"
        status = await desk.look()
        assert status.state is FetchState.LOGIN_REFUSED
        assert "canary" not in status.error


async def test_a_busy_mailbox_is_no_refused_login(tmp_path: Path) -> None:
    async with both(tmp_path) as (server, desk):
        server.capabilities = b"USER\r\n"
        server.answers["PASS"] = b"-ERR [IN-USE] locked\r\n"
        assert (await desk.look()).state is FetchState.RETRYING


async def test_no_password_before_tls(tmp_path: Path) -> None:
    async with both(tmp_path, tls="starttls") as (server, desk):
        server.answers["STLS"] = b"-ERR no\r\n"
        assert "STLS" in (await desk.look()).error
        server.answers["STLS"] = b"+OK go\r\n+OK injected\r\n"
        assert "in the clear" in (await desk.look()).error
        assert {line.split()[0] for line in server.said} <= {"STLS", "QUIT"}
