"""A flood of messages that name ever new hosts whose name servers drop questions must not hold the workers (AS-75)."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.sta.fetching.fetch_gate import WAITING_ALLOWANCE
from gateway.sta.fetching.fetcher import Fetcher, FetchError
from tests.unit.sta.conftest import Web, web

__all__ = ["web"]

WORKERS = 2
SECONDS = 6.0


@pytest.fixture
def dropped(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every question for one of their names is dropped until the test is over."""
    over = threading.Event()

    resolve = socket.getaddrinfo

    def drop(host: str, *more: Any, **options: Any) -> Any:
        if host.startswith("evil"):
            over.wait(30)
            raise socket.gaierror
        return resolve(host, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", drop)
    yield
    over.set()


@pytest.mark.usefixtures("dropped")
def test_workers_are_free_for_most_of_the_time(web: Web) -> None:
    fetcher = Fetcher.configured("public", ["127.0.0.0/8"])
    numbers, lost, ends = itertools.count(), [], time.monotonic() + SECONDS

    def work() -> None:
        while time.monotonic() < ends:
            began, session = time.monotonic(), fetcher.session().share()
            for _ in range(6):
                with pytest.raises(FetchError):
                    session.get(f"http://evil-{next(numbers)}.example/ca.cer")
            lost.append(time.monotonic() - began)
            time.sleep(0.05)

    workers = [threading.Thread(target=work) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    # Each may be waiting for its first when the allowance is used up.
    assert sum(lost) < WAITING_ALLOWANCE + WORKERS * 1.2
    assert sum(lost) < 0.35 * WORKERS * SECONDS
    web.replies["/list.crl"] = b"list"
    assert fetcher.session().get(web.url("/list.crl")) == b"list", "what trusted certificates name is fetched"
