"""Sends the statements of a unit of work to PostgreSQL several at once, and waits once for all of them.

Why: to wait for the answer to each statement costs the gateway and the server more than most statements do, and lets
the interpreter run something else in between. What nobody needs the answer of (:meth:`gateway.store.prepared.Prepared.
later`) waits here and goes with the next statement whose answer is needed, in libpq's pipeline mode, with one Sync at
the end. Each text is prepared once in a session.

Guarantees

* Statements run in the order in which they were given, within the transaction that is open, and none after one that
  failed: the server passes over the rest until the Sync.
* What waits never outlives its transaction. It goes before any statement that is run by other means, and before the
  savepoint is released and the COMMIT is sent; whoever undoes the unit drops it.
* The connection is in pipeline mode only while :meth:`Pipeline.ask` or :meth:`Pipeline.flush` runs, so that everybody
  else finds it as the driver left it.
* Of what waits no more than ``MOST_BYTES`` and one statement are in memory.

Failure modes: psycopg.Error, as the driver's own cursor raises it, of the first statement that failed;
:attr:`Pipeline.blamed` has its text. The transaction then takes nothing but a rollback. A connection that is lost, or
whose answers cannot be told apart any more, is closed.
"""

from __future__ import annotations

import select
from collections.abc import Sequence
from typing import Any, Final

import psycopg
from psycopg.adapt import Transformer
from psycopg.pq import ExecStatus, Format, TransactionStatus
from psycopg.pq.abc import PGresult

MOST_BYTES: Final = 256 * 1024
"""Of parameters that wait to be sent."""
_DEALLOCATE: Final = b"DEALLOCATE ALL"
_DEFINES: Final = ("ALTER", "CREATE", "DROP")
"""First words of statements after which a prepared one may be planned for a table that is another one now."""
_CONTROL: Final = ("SAVEPOINT ", "RELEASE SAVEPOINT ", "ROLLBACK TO SAVEPOINT ")
_READ: Final = select.POLLIN
_READ_OR_WRITE: Final = select.POLLIN | select.POLLOUT
_Encoded = tuple[list[bytes | None], list[Format]]
_Statement = tuple[str, list[bytes | None], list[Format]]


class Reply:
    """What came back of a statement, in the manner of a cursor."""

    __slots__ = ("_rows", "rowcount")

    def __init__(self, rows: list[tuple[Any, ...]], rowcount: int) -> None:
        self._rows = rows
        self.rowcount = rowcount

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Every row."""
        return self._rows

    def fetchone(self) -> tuple[Any, ...] | None:
        """The first row, or None."""
        return self._rows[0] if self._rows else None


class Pipeline:
    """Of one session. Belongs to the thread that writes. Implements :class:`gateway.store.running.Pipeline`."""

    def __init__(self, driver: psycopg.Connection[Any]) -> None:
        """``driver`` must prepare nothing by itself: it would throw away what was prepared here as well."""
        driver.prepare_threshold = None
        self._driver = driver
        self._server = driver.pgconn
        self._loader = Transformer(driver)
        self._names: dict[str, bytes] = {}
        self._count = 0
        self._stale = False
        self._defined = False
        self._unsent: list[_Statement] = []
        self._unsent_bytes = 0
        self.blamed = ""

    # --- what prepared statements ask for ---

    def later(self, sql: str, values: Sequence[Any]) -> bool:
        """Keep the statement for the next time that something is sent; False when it must be run by other means."""
        encoded = self._encode(values)
        if encoded is None:
            return False
        self._unsent.append((sql, *encoded))
        self._unsent_bytes += sum(len(value) for value in encoded[0] if value is not None)
        if self._unsent_bytes > MOST_BYTES:
            self.flush()
        return True

    def ask(self, sql: str, values: Sequence[Any]) -> Reply | None:
        """Send what waits and this statement, and return its answer; None when it must be run by other means."""
        encoded = self._encode(values)
        if encoded is None:
            return None
        result = self._exchange([*self._take(), (sql, *encoded)])
        rows: list[tuple[Any, ...]] = []
        if result.status == ExecStatus.TUPLES_OK and result.ntuples:
            self._loader.set_pgresult(result)
            rows = self._loader.load_rows(0, result.ntuples, tuple)
        changed = result.command_tuples
        return Reply(rows, -1 if changed is None else changed)

    def flush(self) -> None:
        """Send what waits."""
        if self._unsent:
            self._exchange(self._take())

    def drop(self) -> None:
        """Let go of what waits, because the unit is undone; not of the savepoints, which are undone in their turn."""
        kept = [statement for statement in self._unsent if statement[0].startswith(_CONTROL)]
        self._take()
        self._unsent = kept

    # --- what else happens on the session ---

    def before_other(self, sql: str) -> None:
        """Somebody runs a statement by other means. What waits has been sent."""
        if sql.lstrip()[:6].upper().startswith(_DEFINES):
            self._defined = True
            self._forget_plans()

    def ended(self) -> None:
        """The transaction was rolled back, or a new one begins."""
        self._take()
        if self._defined:
            self._defined = False
            self._forget_plans()

    def _forget_plans(self) -> None:
        self._stale = self._stale or bool(self._names)
        self._names.clear()

    # --- sending ---

    def _encode(self, values: Sequence[Any]) -> _Encoded | None:
        """The values as the server takes them; None when the driver must see to them, or begin the transaction."""
        if self._server.transaction_status == TransactionStatus.IDLE:
            return None
        encoded: list[bytes | None] = []
        formats: list[Format] = []
        for value in values:
            kind = type(value)
            form = Format.TEXT
            if kind is psycopg.Binary:
                # So SQLAlchemy marks what goes into a column of bytes, whatever it is.
                value, kind = value.obj, type(value.obj)  # noqa: PLW2901 - the same value
                if kind is not bytes:
                    return None
            if value is None:
                encoded.append(None)
            elif kind is str:
                if "\0" in value:
                    return None
                try:
                    encoded.append(value.encode())
                except UnicodeEncodeError:
                    return None
            elif kind is int:
                encoded.append(b"%d" % value)
            elif kind is bytes:
                encoded.append(value)
                form = Format.BINARY
            elif kind is bool:
                encoded.append(b"t" if value else b"f")
            else:
                return None
            formats.append(form)
        return encoded, formats

    def _take(self) -> list[_Statement]:
        taken, self._unsent = self._unsent, []
        self._unsent_bytes = 0
        return taken

    def _exchange(self, batch: list[_Statement]) -> PGresult:
        """Send the statements and return the answer to the last one. Raises psycopg.Error."""
        server = self._server
        try:
            server.enter_pipeline_mode()
            sent = self._send(batch)
            server.pipeline_sync()
            self._push()
            result, failed = self._receive(sent)
            server.exit_pipeline_mode()
        except BaseException:
            # Nobody could tell to which statement the next answer belongs.
            self._driver.close()
            raise
        if failed is not None:
            raise failed
        assert result is not None  # noqa: S101 - every statement was answered, and none failed
        return result

    def _send(self, batch: list[_Statement]) -> list[tuple[str, bytes | None]]:
        """Put everything on its way; returns each text that is to be answered, and the name that it prepares."""
        server = self._server
        sent: list[tuple[str, bytes | None]] = []
        if self._stale:
            server.send_query_params(_DEALLOCATE, None)
            sent.append(("", None))
            self._stale = False
        fresh: dict[str, bytes] = {}
        for sql, values, formats in batch:
            name = self._names.get(sql) or fresh.get(sql)
            if name is None:
                self._count += 1
                name = fresh[sql] = b"gateway_%d" % self._count
                server.send_prepare(name, sql.encode())
                sent.append((sql, name))
            server.send_query_prepared(name, values, formats, Format.BINARY)
            sent.append((sql, None))
        return sent

    def _push(self) -> None:
        """Get everything out. The server may have to be listened to before it takes more."""
        while self._server.flush():
            if self._wait(_READ_OR_WRITE) & ~select.POLLOUT:
                self._server.consume_input()

    def _receive(self, sent: list[tuple[str, bytes | None]]) -> tuple[PGresult | None, psycopg.Error | None]:
        """Read all answers; returns the last one, and the error of the first statement that failed."""
        result: PGresult | None = None
        failed: psycopg.Error | None = None
        try:
            for sql, name in sent:
                result = self._next()
                if result is None:
                    raise psycopg.OperationalError("the connection was lost")
                if result.status in {ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK}:
                    if name is not None:
                        self._names[sql] = name
                elif failed is None:
                    failed = psycopg.errors.error_from_result(result, encoding="utf-8")
                    self.blamed = sql
                while self._next() is not None:
                    """A statement has one answer, and then None."""
            end = self._next()
            if end is None or end.status != ExecStatus.PIPELINE_SYNC:
                raise psycopg.OperationalError("the connection was lost")
        except psycopg.Error as exc:
            self._driver.close()
            # What the server said before it went says more.
            raise (failed or exc) from None
        return result, failed

    def _next(self) -> PGresult | None:
        server = self._server
        while server.is_busy():
            self._wait(_READ)
            server.consume_input()
        return server.get_result()

    def _wait(self, what: int) -> int:
        """Wait until the socket can be read or written; a peer that is gone is found out by the kernel's timers."""
        poll = select.poll()
        poll.register(self._server.socket, what)
        while not (found := poll.poll()):
            pass
        return found[0][1]
