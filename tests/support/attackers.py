"""Attacks on an SMTP listener, in a process of their own: ``python -m tests.support.attackers KIND PORT RECIPIENT``.

Prints ``ready`` when the attack is under way and goes on until its standard input ends; then one line of JSON: what it
got. All comes from 127.0.0.1, from where the honest senders come as well: a relay, or a router before many.
"""

from __future__ import annotations

import contextlib
import json
import resource
import selectors
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable

from tests.support.intake_faults import Wire

SENDER = "lab@partner.example"
IDLE = 2_000
SLOW = 90
RECIPIENTS = 5_000
BOMB_BYTES = 40_000_000

over = threading.Event()
seen: Counter[str] = Counter()


def idle(port: int, _recipient: str, networks: int = 0) -> None:
    """Connect as fast as possible, and say nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4 * IDLE)), hard))
    waiting, connections = selectors.DefaultSelector(), []
    for number in range(IDLE):
        one = socket.socket()
        one.setblocking(False)
        one.bind((f"127.0.1.{1 + number % networks}" if networks else "127.0.0.1", 0))
        one.connect_ex(("127.0.0.1", port))
        waiting.register(one, selectors.EVENT_WRITE)
        connections.append(one)
    deadline = time.monotonic() + 10
    while waiting.get_map() and time.monotonic() < deadline:
        for key, _ in waiting.select(0.1):
            one = key.fileobj  # type: ignore[assignment]
            seen["connected"] += one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            waiting.unregister(one)
    print("ready", flush=True)
    over.wait()
    for one in connections:
        try:
            said = one.recv(65_536)
        except BlockingIOError:
            seen["silent"] += 1
        except OSError:
            seen["reset"] += 1
        else:
            seen["greeted" if said.startswith(b"220") else "sent away"] += 1


def idle_everywhere(port: int, recipient: str) -> None:
    """The same from a hundred networks."""
    idle(port, recipient, networks=100)


def _begun(port: int, recipient: str) -> Wire:
    client = Wire(port)
    for command in (f"MAIL FROM:<{SENDER}>", f"RCPT TO:<{recipient}>", "DATA"):
        client.ask(command)
    return client


def slow(port: int, recipient: str) -> None:
    """A byte a second in many messages at once."""
    clients = []
    for _ in range(SLOW):
        with contextlib.suppress(OSError):
            clients.append(_begun(port, recipient))
    seen["begun"] = len(clients)
    print("ready", flush=True)
    while not over.wait(1):
        for client in clients:
            client.send(b"x")


def _again_and_again(count: int, once: Callable[[], None]) -> None:
    def work() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError):
                once()
                seen["rounds"] += 1

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    print("ready", flush=True)
    for thread in threads:
        thread.join()


def line_bomb(port: int, recipient: str) -> None:
    """A line of tens of megabytes in a message, and one where a command is wanted."""
    piece = b"x" * 1_000_000

    def once() -> None:
        with _begun(port, recipient) as client:
            for _ in range(BOMB_BYTES // len(piece)):
                if over.is_set():
                    return
                client.send(piece)
            client.send(b"\r\n.\r\n")
            seen[client.reply()[:9]] += 1
        with Wire(port) as client:
            client.send(piece)
            seen[client.reply()[:9]] += 1

    _again_and_again(2, once)


def recipients(port: int, _recipient: str) -> None:
    """Thousands of recipients in one transaction, sent without waiting for replies."""
    many = b"".join(b"RCPT TO:<n%d@clinic.example>\r\n" % number for number in range(RECIPIENTS))

    def once() -> None:
        with Wire(port) as client:
            client.ask(f"MAIL FROM:<{SENDER}>")
            client.send(many)
            for _ in range(RECIPIENTS):
                reply = client.reply()
                if not reply.startswith(("250", "452", "550")):
                    seen[reply[:9]] += 1
                    return

    _again_and_again(2, once)


def senders(port: int, recipient: str) -> None:
    """No attack: one message after the other, each on a connection of its own; tells how long each took in all."""
    waits: list[float] = []
    print("ready", flush=True)
    number = 0
    while not over.is_set():
        began, number = time.monotonic(), number + 1
        raw = f"From: {SENDER}\r\nMessage-ID: <{number}@partner.example>\r\n\r\nx\r\n".encode()
        while not over.is_set():
            # Who is told to come again comes again; what it waits in all is what counts.
            with contextlib.suppress(OSError), Wire(port, seconds=10) as client:
                if client.deliver(raw, SENDER, recipient).startswith("250"):
                    break
            seen["sent away"] += 1
            time.sleep(0.05)
        waits.append(time.monotonic() - began)
        time.sleep(0.01)
    waits.sort()
    seen["sent"] = len(waits)
    for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)):
        seen[f"{name} ms"] = round(waits[min(len(waits) - 1, int(len(waits) * share))] * 1000)


KINDS = {one.__name__: one for one in (idle, idle_everywhere, slow, line_bomb, recipients, senders)}


def main() -> None:
    kind, port, recipient = sys.argv[1:]

    def until_told() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=until_told, daemon=True).start()
    KINDS[kind](int(port), recipient)
    print(json.dumps(seen), flush=True)


if __name__ == "__main__":
    main()
