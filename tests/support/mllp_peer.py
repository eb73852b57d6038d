"""A receiver of HL7 v2 in a process of its own: a simple integration engine that can be told to misbehave.

Written without the gateway's own reader and frames, so that a mistake there is not repeated here. As a program it
listens on one port, writes every message that it took whole to ``FOLDER/journal`` (a JSON line each) before it answers,
and reads what to do from ``FOLDER/mode`` for each message. :class:`MLLPPeer` starts, stops and kills it.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

START, END = b"\x0b", b"\x1c\r"


class MLLPPeer:
    """The process, as a test sees it."""

    def __init__(self, folder: Path, port: int, **tls: Path) -> None:
        """``tls``: ``certificate``, ``key`` and, for mutual TLS, ``client_ca``."""
        self.folder, self.port = folder, port
        self._tls = {name: str(path) for name, path in tls.items()}
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(exist_ok=True)
        self.mode("AA")

    def mode(self, word: str) -> None:
        """An acknowledgement code, or one of the misdeeds of :func:`_misdeed`."""
        part = self.folder / "mode.part"
        part.write_text(word)
        part.rename(self.folder / "mode")

    def start(self) -> MLLPPeer:
        settings = json.dumps({"folder": str(self.folder), "port": self.port, **self._tls})
        self._process = subprocess.Popen([sys.executable, __file__, settings])
        ready, deadline = self.folder / "ready", time.monotonic() + 20
        while not ready.exists():
            assert time.monotonic() < deadline, "the peer does not start"
            assert self._process.poll() is None, "the peer has ended"
            time.sleep(0.02)
        return self

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        (self.folder / "ready").unlink(missing_ok=True)

    @property
    def journal(self) -> list[dict[str, Any]]:
        """Every message that was taken: ``connection`` (a number) and ``message``."""
        path = self.folder / "journal"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def messages(self) -> list[str]:
        return [str(entry["message"]) for entry in self.journal]

    @property
    def documents(self) -> set[str]:
        """What a receiver that files by TXA-12 holds."""
        lines = [line for message in self.messages for line in message.split("\r") if line.startswith("TXA")]
        return {line.split("|")[12].split("^")[0] for line in lines}


class _Engine:
    def __init__(self, settings: dict[str, str]) -> None:
        self._settings = settings
        self._folder = Path(settings["folder"])
        self._connections = 0

    async def run(self) -> None:
        context = None
        if "certificate" in self._settings:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._settings["certificate"], self._settings["key"])
            if "client_ca" in self._settings:
                context.load_verify_locations(self._settings["client_ca"])
                context.verify_mode = ssl.CERT_REQUIRED
        server = await asyncio.start_server(self._serve, "127.0.0.1", int(self._settings["port"]), ssl=context)
        (self._folder / "ready").touch()
        await server.serve_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        number, held = self._connections, b""
        try:
            while True:
                while END not in held:
                    octets = await reader.read(65_536)
                    if not octets:
                        return
                    held += octets
                    if (self._folder / "mode").read_text() == "close_within":
                        return
                whole, _, held = held.partition(END)
                message = whole.partition(START)[2].decode("utf-8")
                self._keep(number, message)
                if not await _misdeed((self._folder / "mode").read_text(), message, writer):
                    return
        except (OSError, ssl.SSLError):
            return
        finally:
            writer.close()

    def _keep(self, number: int, message: str) -> None:
        with (self._folder / "journal").open("a") as file:
            file.write(json.dumps({"connection": number, "message": message}) + "\n")
            file.flush()
            os.fsync(file.fileno())


async def _misdeed(mode: str, message: str, writer: asyncio.StreamWriter) -> bool:
    """Answer as the mode says; False closes the connection."""
    control = message.partition("\r")[0].split("|")[9]
    code = mode if len(mode) == 2 else "AA"
    answer = f"MSH|^~\\&|EHR|HOSP|DIRECTGW|CLINIC|20260601||ACK|A1|P|2.5.1\rMSA|{code}|{control}\r".encode()
    if mode == "close":
        return False
    if mode == "silent":
        return True
    if mode == "slow":
        await asyncio.sleep(1.5)
    if mode == "half":
        writer.write(START + answer[:30])
        await writer.drain()
        return False
    if mode == "wrong_id":
        answer = answer.replace(control.encode(), b"SOMETHINGELSE")
    if mode == "garbage":
        answer = b"\x00\xff" * 40
    if mode == "no_frame":
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nServer: something\r\nConnection: close\r\n\r\n")
    elif mode == "endless":
        writer.write(START + b"MSH|" + b"x" * 1_000_000)
    elif mode == "trickle":
        for octet in START + answer + END:
            writer.write(bytes([octet]))
            await writer.drain()
            await asyncio.sleep(0.002)
    else:
        writer.write(START + answer + END)
    await writer.drain()
    return mode != "then_close"


if __name__ == "__main__":
    asyncio.run(_Engine(json.loads(sys.argv[1])).run())
