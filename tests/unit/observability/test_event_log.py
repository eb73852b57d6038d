"""The logs: promise 6, F38."""

from __future__ import annotations

import ast
import io
import json
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import gateway
from gateway.core.verdict import Reason
from gateway.observability import log as module
from gateway.observability.clock import SystemClock
from gateway.observability.fields import ALLOWED, WITHHELD, UnknownFieldError, clean
from gateway.observability.log import configure, describe_exception, event, get_log
from gateway.ports import Clock
from gateway.settings import LogSettings

SECRET = "Jane Roe, born 1950-02-03"
TOUCHED = ("", "gateway", "mail", "mail.log", "mail.debug", "asyncio", "sqlalchemy", "uvicorn", "uvicorn.error")


@pytest.fixture
def configured() -> Iterator[Callable[..., io.StringIO]]:
    """Calls configure() with a stream of its own, and puts everything back afterwards."""
    loggers = [logging.getLogger(name) for name in (*TOUCHED, "uvicorn.access", "pyhanko_certvalidator")]
    before = [(each, each.level, each.propagate, list(each.handlers)) for each in loggers]
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    raising = logging.raiseExceptions

    def start(log_format: str = "text", level: str = "info") -> io.StringIO:
        stream = io.StringIO()
        configure(LogSettings(level=level, format=log_format), stream=stream)
        return stream

    try:
        yield start
    finally:
        for each, level, propagate, handlers in before:
            each.setLevel(level)
            each.propagate = propagate
            each.handlers[:] = handlers
        sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
        logging.raiseExceptions = raising


def test_text(configured: Callable[..., io.StringIO]) -> None:
    stream = configured()
    get_log("ingress").info("smtp_accepted", message_id="01J8", size_bytes=12, peer="192.0.2.7", tls_version="TLSv1.3")
    event("started", port=25, jobs=None, count=True)
    first, second = stream.getvalue().splitlines()
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info    "
        r"smtp_accepted message_id=01J8 size_bytes=12 peer=192\.0\.2\.7 tls_version=TLSv1\.3",
        first,
    )
    assert second.endswith("started port=25 jobs=- count=true")
    written = datetime.fromisoformat(first[:24])
    assert abs(written - datetime.now(UTC)) < timedelta(minutes=1)


def test_json(configured: Callable[..., io.StringIO]) -> None:
    stream = configured("json")
    get_log("store").warning("slow_commit", duration_ms=1234.56789, reason=Reason.BAD_SIGNATURE)
    line = json.loads(stream.getvalue())
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "warning",
        "logger": "gateway.store",
        "event": "slow_commit",
        "duration_ms": 1234.568,
        "reason": "bad_signature",
    }


def test_level(configured: Callable[..., io.StringIO]) -> None:
    stream = configured(level="warning")
    get_log("x").info("hidden", count=1)
    get_log("x").warning("shown", count=1)
    assert "hidden" not in stream.getvalue()
    assert "shown" in stream.getvalue()


def test_configure_twice_writes_once(configured: Callable[..., io.StringIO]) -> None:
    old = configured()
    new = configured("json")
    get_log("x").info("once")
    assert old.getvalue() == ""
    assert len(new.getvalue().splitlines()) == 1


def test_an_unknown_field_raises_in_tests_and_is_dropped_in_production(
    configured: Callable[..., io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = configured(level="error")
    with pytest.raises(UnknownFieldError, match="subject"):
        # Even on a line that the level hides.
        get_log("x").debug("seen", subject=SECRET)
    monkeypatch.delitem(sys.modules, "pytest")
    get_log("x").error("seen", subject=SECRET, sender=SECRET, count=3)
    assert "seen count=3 dropped=2" in stream.getvalue()
    assert "Jane" not in stream.getvalue()


@pytest.mark.parametrize("name", ["subject", "sender", "mail_from", "rcpt", "filename", "patient_id", "login", "error"])
def test_there_is_no_field_for_phi(name: str) -> None:
    assert name not in ALLOWED


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("message_id", "<abc@host.example>"),
        ("message_id", "two words"),
        ("message_id", "line\nbreak"),
        ("message_id", ""),
        ("message_id", "x" * 200),
        ("message_id", ValueError(SECRET)),
        ("reason", "Jane Roe"),
        ("reason", "Jane"),
        ("kind", "jane@x"),
        ("count", "Jane"),
        ("count", [SECRET]),
        ("size_bytes", b"1"),
        ("peer", "jane.example"),
        ("peer", "doctor@direct.example.org"),
        ("peer", None),
    ],
)
def test_a_value_of_the_wrong_form_is_withheld(name: str, value: object) -> None:
    assert clean({name: value}, strict=True) == {name: WITHHELD}


@pytest.mark.parametrize(
    ("peer", "shown"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:25", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]:25 helo=jane-roe.example tls=none", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
    ],
)
def test_of_a_peer_only_the_address_is_written(peer: str, shown: str) -> None:
    assert clean({"peer": peer}, strict=True) == {"peer": shown}


class StrangeError(Exception):
    pass


def fail() -> None:
    secret = SECRET
    try:
        int(secret)
    except ValueError as exc:
        raise StrangeError(f"INSERT ... [parameters: {secret!r}]") from exc


def caught(action: Callable[[], None]) -> BaseException:
    try:
        action()
    except BaseException as exc:
        return exc
    raise AssertionError


def test_an_exception_shows_class_and_place_only(configured: Callable[..., io.StringIO]) -> None:
    stream = configured()
    get_log("x").fault("broken", caught(fail), job_id=7)
    line = stream.getvalue()
    assert "Jane" not in line
    assert "INSERT" not in line
    assert len(line.splitlines()) == 1
    assert 'broken job_id=7 exception="' in line
    assert "test_event_log.StrangeError < ValueError" in line
    assert re.search(r"tests/unit/observability/test_event_log\.py:\d+", line)


def test_a_group_shows_what_it_holds() -> None:
    group = ExceptionGroup(SECRET, [KeyError(SECRET), ValueError(SECRET)])
    assert describe_exception(group) == {"exception": "ExceptionGroup < KeyError"}


def test_a_cycle_of_causes_ends() -> None:
    first, second = ValueError(), KeyError()
    first.__cause__, second.__cause__ = second, first
    assert str(describe_exception(first)["exception"]).startswith("ValueError < KeyError < ")


def test_of_a_library_only_the_fact_is_written(configured: Callable[..., io.StringIO]) -> None:
    """F38: aiosmtpd logs addresses, SQLAlchemy logs parameters, asyncio logs exceptions with their text."""
    stream = configured("json", "debug")
    for name in ("mail.log", "mail.debug", "uvicorn.access"):
        logging.getLogger(name).critical("%s", SECRET)
    assert stream.getvalue() == ""
    logging.getLogger("sqlalchemy.engine.Engine").info("INSERT %s", SECRET)
    assert stream.getvalue() == ""
    for name in ("asyncio", "uvicorn.error", "some.library", "gateway.room"):
        try:
            fail()
        except StrangeError:
            logging.getLogger(name).exception("failed for %s", SECRET, extra={"detail": SECRET})
    logging.getLogger("py.warnings").warning(SECRET)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["library_message"] * 5
    assert lines[0]["exception"].endswith("StrangeError < ValueError")
    assert "test_event_log.py" in lines[4]["where"]
    assert "Jane" not in stream.getvalue()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_uncaught_exceptions_show_no_text(configured: Callable[..., io.StringIO]) -> None:
    stream = configured()
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    error = caught(fail)
    sys.excepthook(type(error), error, error.__traceback__)
    sys.unraisablehook(cast("Any", SimpleNamespace(exc_value=error)))
    assert [line.split()[2] for line in stream.getvalue().splitlines()] == [
        "uncaught_exception_in_thread",
        "uncaught_exception",
        "unraisable_exception",
    ]
    assert "Jane" not in stream.getvalue()


def test_a_broken_stream_stops_nothing(configured: Callable[..., io.StringIO]) -> None:
    stream = configured()
    stream.close()
    get_log("x").error("nobody_reads_this")


def test_an_odd_event_name_is_not_written(configured: Callable[..., io.StringIO]) -> None:
    stream = configured()
    get_log("x").info(f"accepted from {SECRET}")
    assert "unnamed_event" in stream.getvalue()
    assert "Jane" not in stream.getvalue()


def test_every_log_call_of_the_program_uses_the_allow_list() -> None:
    """A line that no other test reaches must not be the one that loses its fields in production."""
    root = Path(gateway.__file__).parent
    methods = {"debug", "info", "warning", "error", "fault"}
    seen = 0
    wrong = []
    for path in root.rglob("*.py"):
        if path.is_relative_to(Path(module.__file__).parent) or "get_log" not in path.read_text("utf-8"):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            receiver = ast.unparse(node.func.value).rpartition(".")[2]
            if node.func.attr not in methods or receiver not in {"log", "_log"}:
                continue
            seen += 1
            name = node.args[0] if node.args else None
            if not (isinstance(name, ast.Constant) and re.fullmatch(r"[a-z][a-z0-9_]*", str(name.value))):
                wrong.append(f"{path.name}:{node.lineno}: the event is no constant name")
            allowed = ALLOWED.keys() | ({"exc"} if node.func.attr == "warning" else set())
            wrong += [f"{path.name}:{node.lineno}: {word.arg}" for word in node.keywords if word.arg not in allowed]
    assert wrong == []
    assert seen > 5


def test_the_clock_is_aware_and_in_utc() -> None:
    clock: Clock = SystemClock()
    assert clock.now().utcoffset() == timedelta(0)
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(seconds=5)
