"""Structured logs on standard error, free of PHI (promise 6, F38).

Use::

    log = get_log("ingress")
    log.info("smtp_accepted", message_id=message_id, size_bytes=len(raw))
    log.fault("smtp_fault", error)

Guarantees:

* An event has a constant name and fields of the allow-list in :mod:`gateway.observability.fields`, no sentence.
* Of an exception only its class and the places in the program are written: never its text, which may hold a line
  of a message or the parameters of an SQL statement, and never a local variable. That holds for uncaught
  exceptions of the process and its threads as well.
* Of a library's log record only its logger, its level, the place of the call and such an exception are written,
  never its text: aiosmtpd, for one, logs every address. Its loggers are closed altogether, and so is that of HTTP
  requests.
* A line is one line: no value can hold a line end.

Failure modes: a log call never raises, except for an unknown field under pytest (see fields.py); when standard
error cannot be written, the line is lost.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Protocol, TextIO

from gateway.observability.fields import Value, clean

_ROOT = "gateway"
_EVENT = re.compile(r"[a-z][a-z0-9_.]{0,63}\Z")
_CLOSED = ("mail", "mail.log", "mail.debug", "uvicorn.access")
_QUIET = ("asyncio", "sqlalchemy", "uvicorn", "uvicorn.error", "pyhanko_certvalidator")
_PACKAGE = Path(__file__).resolve().parent.parent
_MAX_FRAMES = 12
_MAX_CAUSES = 5


class LogOptions(Protocol):
    """What ``gateway.settings.LogSettings`` looks like; this room and that one do not know each other."""

    @property
    def level(self) -> str:
        """``debug``, ``info``, ``warning`` or ``error``."""
        ...

    @property
    def format(self) -> str:
        """``text`` or ``json``."""
        ...


class EventLog:
    """The log of one room. Cheap; make one per module with :func:`get_log`.

    ``name`` is a constant in ``lower_snake_case``; ``fields`` are of the allow-list; of ``exc`` the class and the
    location are written. Every method raises UnknownFieldError for any other field, under pytest only.
    """

    def __init__(self, room: str) -> None:
        self._logger = logging.getLogger(f"{_ROOT}.{room}")

    def debug(self, name: str, **fields: object) -> None:
        self._emit(name, logging.DEBUG, None, fields)

    def info(self, name: str, **fields: object) -> None:
        self._emit(name, logging.INFO, None, fields)

    def warning(self, name: str, *, exc: BaseException | None = None, **fields: object) -> None:
        self._emit(name, logging.WARNING, exc, fields)

    def error(self, name: str, **fields: object) -> None:
        self._emit(name, logging.ERROR, None, fields)

    def fault(self, name: str, exc: BaseException, **fields: object) -> None:
        """An error with its exception, to be used in an ``except`` block."""
        self._emit(name, logging.ERROR, exc, fields)

    def _emit(self, name: str, level: int, exc: BaseException | None, fields: Mapping[str, object]) -> None:
        # A forgotten field must fail its test even when the level hides the line, so the check comes first.
        kept = clean(fields, strict="pytest" in sys.modules)
        if not self._logger.isEnabledFor(level):
            return
        if exc is not None:
            kept |= describe_exception(exc)
        event = name if _EVENT.match(name) else "unnamed_event"
        self._logger.log(level, "%s", _line(event, kept), extra={"gateway_event": event, "gateway_fields": kept})


def get_log(room: str) -> EventLog:
    """The log of a room, named after its package: ``ingress``, ``store``."""
    return EventLog(room)


def event(name: str, **fields: object) -> None:
    """Write an event of no room in particular, at level info."""
    EventLog("main").info(name, **fields)


def configure(settings: LogOptions, *, stream: TextIO | None = None) -> None:
    """Send all logs of the process to standard error, as described above. Calling it again replaces the first call.

    Args:
        settings: level and format.
        stream: instead of standard error.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Formatter(as_json=settings.format == "json"))
    root = logging.getLogger()
    for old in [h for h in root.handlers if isinstance(h.formatter, _Formatter)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger(_ROOT).setLevel(settings.level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in _CLOSED:
        closed = logging.getLogger(name)
        closed.setLevel(logging.CRITICAL + 1)
        closed.propagate = False
    # A traceback that logging prints about its own failures would show the arguments of the call.
    logging.raiseExceptions = False
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    sys.unraisablehook = _unraisable


def keep_silent() -> None:
    """Write no log line unless ``configure`` says so: for commands, which tell in their own words what happened."""
    root = logging.getLogger()
    if any(isinstance(handler.formatter, _Formatter) for handler in root.handlers):
        return
    handler = logging.NullHandler()
    handler.setFormatter(_Formatter(as_json=False))
    # Python writes warnings to standard error where no handler is.
    root.addHandler(handler)


def describe_exception(error: BaseException) -> dict[str, Value]:
    """The loggable side of an exception: ``exception`` (classes, outermost first) and ``where`` (innermost last)."""
    classes = " < ".join(_class_names(error))
    described = clean({"exception": classes}, strict=True)
    origin = list(_causes(error))[-1]
    places = [_place(at.tb_frame.f_code.co_filename, at.tb_lineno) for at in _frames(origin.__traceback__)]
    if places:
        described |= clean({"where": ", ".join(places[-_MAX_FRAMES:])}, strict=True)
    return described


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen = 0
    current: BaseException | None = error
    while current is not None and seen < _MAX_CAUSES:
        yield current
        seen += 1
        if isinstance(current, BaseExceptionGroup):
            # A TaskGroup wraps what went wrong; the first member is what the operator needs to see.
            current = current.exceptions[0]
        else:
            current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _class_names(error: BaseException) -> Iterator[str]:
    for cause in _causes(error):
        kind = type(cause)
        module = "" if kind.__module__ in {"builtins", "__main__"} else kind.__module__ + "."
        yield module + kind.__qualname__


def _frames(traceback: TracebackType | None) -> Iterator[TracebackType]:
    while traceback is not None:
        yield traceback
        traceback = traceback.tb_next


def _place(filename: str, line: int) -> str:
    path = Path(filename)
    # Only the last two parts of a path outside the package: where it is installed may name a person's home.
    known = path.is_relative_to(_PACKAGE.parent) and "site-packages" not in path.parts
    shown = path.relative_to(_PACKAGE.parent) if known else Path(*path.parts[-2:])
    return f"{shown}:{line}"


def _line(name: str, fields: dict[str, Value]) -> str:
    return " ".join([name, *(f"{key}={_shown(value)}" for key, value in fields.items())])


def _shown(value: Value) -> str:
    if isinstance(value, str) and " " in value:
        return f'"{value}"'
    return "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


class _Formatter(logging.Formatter):
    """Writes our events as they are, and of anybody else's record only that there was one."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        name, fields = _content(record)
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        level = record.levelname.lower()
        if not self._as_json:
            return f"{when} {level:<7} {_line(name, fields)}"
        return json.dumps({"time": when, "level": level, "logger": record.name, "event": name, **fields})


def _content(record: logging.LogRecord) -> tuple[str, dict[str, Value]]:
    name = getattr(record, "gateway_event", None)
    fields = getattr(record, "gateway_fields", None)
    if isinstance(name, str) and isinstance(fields, dict):
        return name, fields
    kept = clean({"logger": record.name, "where": _place(record.pathname, record.lineno)}, strict=True)
    if record.exc_info and record.exc_info[1] is not None:
        kept |= describe_exception(record.exc_info[1])
    return "library_message", kept


def _uncaught(_kind: type[BaseException], error: BaseException, _traceback: TracebackType | None) -> None:
    if not isinstance(error, KeyboardInterrupt):
        EventLog("main").fault("uncaught_exception", error)


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
        EventLog("main").fault("uncaught_exception_in_thread", args.exc_value)


def _unraisable(args: sys.UnraisableHookArgs) -> None:
    if args.exc_value is not None:
        EventLog("main").fault("unraisable_exception", args.exc_value)
