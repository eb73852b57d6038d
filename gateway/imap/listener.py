"""The IMAP service on its two ports. Limits, TLS and the end in order are those of :mod:`gateway.serving.listener`."""

from __future__ import annotations

import ssl

from gateway.imap.commands import COMMANDS
from gateway.imap.recents import Recents
from gateway.imap.session import IMAPSession, Surroundings
from gateway.inbox.mailbox_service import MailboxService
from gateway.serving.authenticator import Authenticator
from gateway.serving.connection import Connection
from gateway.serving.listener import Listener, Service
from gateway.serving.session_registry import SessionRegistry
from gateway.settings import IMAPSettings


class IMAPListener(Listener):
    """``starttls_port`` and ``tls_port`` override the settings; 0 = any free one."""

    def __init__(
        self,
        settings: IMAPSettings,
        authenticator: Authenticator,
        inbox: MailboxService,
        tls: ssl.SSLContext,
        *,
        starttls_port: int | None = None,
        tls_port: int | None = None,
        sessions: SessionRegistry | None = None,
    ) -> None:
        recents = Recents(all_recent=inbox.policy.all_recent)
        surroundings = Surroundings(settings, authenticator, inbox, tls, sessions, recents)

        def session(connection: Connection) -> IMAPSession:
            return IMAPSession(connection, surroundings, COMMANDS)

        service = Service(
            name="IMAP",
            section="imap",
            refusal=b"* BYE [UNAVAILABLE] Too many connections\r\n",
            max_line_bytes=settings.max_line_kib * 1024,
            session=session,
        )
        super().__init__(service, settings, tls, starttls_port=starttls_port, tls_port=tls_port)
