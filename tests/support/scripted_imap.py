"""An IMAP server that says what a test tells it to: honest by default, hostile where the test wants it."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Self

Writer = asyncio.StreamWriter


@dataclass
class ScriptedIMAP:
    """A server on a loopback port, in the test's own event loop.

    ``override`` sees each command first (tag, words) and answers in its own way by returning bytes or an awaitable;
    None leaves it to the honest server.
    """

    messages: dict[int, bytes] = field(default_factory=dict)
    flags: dict[int, set[str]] = field(default_factory=dict)
    uid_validity: int = 7
    uid_next: int | None = None
    password: str = "good"
    greeting: bytes = b"* OK ready\r\n"
    capabilities: str = "IMAP4rev1 IDLE AUTH=PLAIN SASL-IR UIDPLUS"
    override: Callable[[str, list[str], Writer], bytes | Awaitable[bytes | None] | None] = lambda *_: None
    starttls: ssl.SSLContext | None = None
    port: int = 0
    logins: int = 0
    said: list[str] = field(default_factory=list)
    sessions: list[Writer] = field(default_factory=list)
    idling: int = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=1 << 20)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self._server.close()
        for writer in self.sessions:
            writer.transport.abort()
        await asyncio.sleep(0)

    def put(self, message: bytes, *flags: str) -> int:
        uid = max([0, *self.messages, (self.uid_next or 1) - 1]) + 1
        self.messages[uid] = message
        self.flags[uid] = set(flags)
        self.uid_next = uid + 1
        return uid

    def push(self, data: bytes) -> None:
        """Say something to everybody, unasked."""
        for writer in self.sessions:
            writer.write(data)

    # --- one session ---

    async def _serve(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        self.sessions.append(writer)
        writer.write(self.greeting)
        try:
            while line := await reader.readline():
                tag, *words = line.decode("utf-8", "replace").split()
                if tag == "DONE":
                    self.idling -= 1
                    writer.write(self._idle_tag + b" OK done\r\n")
                    continue
                self.said.append(" ".join(words))
                answer = self.override(tag, words, writer)
                if answer is not None and not isinstance(answer, bytes):
                    answer = await answer
                if answer is None:
                    answer = await self._honest(tag, words, reader, writer)
                writer.write(answer)
                await writer.drain()
        except (ConnectionError, ValueError):
            pass
        finally:
            self.sessions.remove(writer)
            writer.close()

    async def _honest(self, tag: str, words: list[str], reader: asyncio.StreamReader, writer: Writer) -> bytes:
        name = words[0].upper()
        ok = f"{tag} OK done\r\n".encode()
        if name == "CAPABILITY":
            return f"* CAPABILITY {self.capabilities}\r\n".encode() + ok
        if name == "STARTTLS" and self.starttls is not None:
            writer.write(ok)
            await writer.drain()
            await writer.start_tls(self.starttls)
            return b""
        if name in {"AUTHENTICATE", "LOGIN"}:
            return await self._login(tag, words, reader, writer)
        if name == "SELECT":
            uid_next = f"* OK [UIDNEXT {self.uid_next or 1}] next\r\n"
            state = f"* {len(self.messages)} EXISTS\r\n* OK [UIDVALIDITY {self.uid_validity}] valid\r\n{uid_next}"
            return state.encode() + f"{tag} OK [READ-WRITE] selected\r\n".encode()
        if name == "IDLE":
            self._idle_tag = tag.encode()
            self.idling += 1
            return b"+ idling\r\n"
        if name == "UID":
            return self._uid(words[1].upper(), words[2:]) + ok
        if name == "LOGOUT":
            return b"* BYE bye\r\n" + ok
        return f"{tag} BAD what?\r\n".encode()

    async def _login(self, tag: str, words: list[str], reader: asyncio.StreamReader, writer: Writer) -> bytes:
        self.logins += 1
        if words[0].upper() == "LOGIN":
            good = words[2] == f'"{self.password}"'
        else:
            if len(words) < 3:
                writer.write(b"+ \r\n")
                words = [*words, (await reader.readline()).decode().strip()]
            given = base64.b64decode(words[2]).decode()
            if words[1] == "XOAUTH2":
                good = given == f"user=clinic\1auth=Bearer {self.password}\1\1"
                if not good:
                    writer.write(b"+ eyJzdGF0dXMiOiI0MDEifQ==\r\n")
                    assert await reader.readline() == b"\r\n"
            else:
                good = given == f"\0clinic\0{self.password}"
        return f"{tag} {'OK in' if good else 'NO [AUTHENTICATIONFAILED] canary-server-text'}\r\n".encode()

    def _uid(self, verb: str, words: list[str]) -> bytes:
        if verb == "SEARCH":
            return b"* SEARCH " + " ".join(map(str, self._searched(words))).encode() + b"\r\n"
        last = max(self.messages, default=0)
        uids = [uid for uid in self.messages if _in(uid, words[0], last)]
        if verb == "STORE":
            for uid in uids:
                self.flags[uid] |= set(words[2].strip("()").split())
            return b""
        wanted = " ".join(words[1:])
        found = b""
        for uid in uids:
            body = self.messages[uid]
            if "BODY.PEEK[]" in wanted:
                found += b"* %d FETCH (UID %d BODY[] {%d}\r\n%s)\r\n" % (uid, uid, len(body), body)
            else:
                found += b"* %d FETCH (UID %d RFC822.SIZE %d)\r\n" % (uid, uid, len(body))
        return found

    def _searched(self, words: list[str]) -> list[int]:
        found = sorted(self.messages)
        text = " ".join(words)
        if words and words[0] == "UID":
            last = max(found, default=0)
            found = [uid for uid in found if _in(uid, words[1], last)]
        if "UNSEEN" in text and "OR" not in text:
            found = [uid for uid in found if "\\Seen" not in self.flags[uid]]
        return found


def _in(uid: int, numbers: str, last: int) -> bool:
    for run in numbers.split(","):
        low, _, high = run.partition(":")
        ends = sorted((int(low), last if high == "*" else int(high or low)))
        if ends[0] <= uid <= ends[1]:
            return True
    return False
