"""The POP3 service on its two ports. Limits, TLS and the end in order are those of :mod:`gateway.serving.listener`."""

from __future__ import annotations

import ssl

from gateway.inbox.maildrops import Maildrops
from gateway.pop3.commands import COMMANDS
from gateway.pop3.session import POP3Session, Surroundings
from gateway.serving.authenticator import Authenticator
from gateway.serving.connection import Connection
from gateway.serving.listener import Listener, Service
from gateway.serving.sasl import MAX_RESPONSE_BYTES
from gateway.serving.session_registry import SessionRegistry
from gateway.settings import POP3Settings

MAX_LINE_BYTES = MAX_RESPONSE_BYTES + 64
"""A line of base64 (RFC 5034 section 4), behind ``AUTH`` and the name of a mechanism. All other commands are short."""


class POP3Listener(Listener):
    """``starttls_port`` (STLS) and ``tls_port`` override the settings; 0 = any free one."""

    def __init__(
        self,
        settings: POP3Settings,
        authenticator: Authenticator,
        maildrops: Maildrops,
        tls: ssl.SSLContext,
        *,
        sessions: SessionRegistry | None = None,
        starttls_port: int | None = None,
        tls_port: int | None = None,
    ) -> None:
        surroundings = Surroundings(settings, authenticator, maildrops, tls, sessions)

        def session(connection: Connection) -> POP3Session:
            return POP3Session(connection, surroundings, COMMANDS)

        service = Service(
            name="POP3",
            section="pop3",
            refusal=b"-ERR [SYS/TEMP] Too many connections\r\n",
            max_line_bytes=MAX_LINE_BYTES,
            session=session,
        )
        super().__init__(service, settings, tls, starttls_port=starttls_port, tls_port=tls_port)
