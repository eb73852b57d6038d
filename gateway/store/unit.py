"""One unit of work: all rows over one connection, within one transaction (:class:`gateway.ports.UnitOfWork`)."""

from __future__ import annotations

from sqlalchemy import Connection

from gateway.store.accounts import Accounts
from gateway.store.audit_log import AuditLog
from gateway.store.jobs import Jobs
from gateway.store.links import Links
from gateway.store.mailboxes import Mailboxes
from gateway.store.messages import Messages
from gateway.store.patients import Patients


class SQLUnitOfWork:
    """All rows, within one transaction. Lives as long as the unit runs and must not be kept."""

    __slots__ = ("accounts", "audit", "jobs", "links", "mailboxes", "messages", "patients")

    def __init__(self, connection: Connection) -> None:
        self.messages = Messages(connection)
        self.jobs = Jobs(connection)
        self.mailboxes = Mailboxes(connection)
        self.accounts = Accounts(connection)
        self.patients = Patients(connection)
        self.links = Links(connection)
        self.audit = AuditLog(connection)
