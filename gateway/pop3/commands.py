"""The table of commands: which is allowed in which state of RFC 1939, and what does it."""

from __future__ import annotations

from gateway.pop3 import commands_session as session
from gateway.pop3 import commands_transaction as transaction
from gateway.pop3.session import AFTER_LOGIN, ANY_STATE, BEFORE_LOGIN, CommandRule

COMMANDS: dict[bytes, CommandRule] = {
    b"CAPA": CommandRule(ANY_STATE, session.capa),
    b"STLS": CommandRule(BEFORE_LOGIN, session.stls),
    b"USER": CommandRule(BEFORE_LOGIN, session.user),
    b"PASS": CommandRule(BEFORE_LOGIN, session.pass_),
    b"AUTH": CommandRule(BEFORE_LOGIN, session.auth),
    b"QUIT": CommandRule(ANY_STATE, session.quit_),
    # RFC 1939 knows NOOP after login only; test suites and keep-alives send it before as well (EP-30).
    b"NOOP": CommandRule(ANY_STATE, session.noop),
    b"STAT": CommandRule(AFTER_LOGIN, transaction.stat, looks=True),
    b"LIST": CommandRule(AFTER_LOGIN, transaction.list_, looks=True),
    b"UIDL": CommandRule(AFTER_LOGIN, transaction.uidl, looks=True),
    b"RETR": CommandRule(AFTER_LOGIN, transaction.retr, looks=True),
    b"TOP": CommandRule(AFTER_LOGIN, transaction.top_, looks=True),
    b"DELE": CommandRule(AFTER_LOGIN, transaction.dele, looks=True),
    b"RSET": CommandRule(AFTER_LOGIN, transaction.rset),
}
"""By name in upper case. APOP is absent: it needs passwords in clear at rest."""
