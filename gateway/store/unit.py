"""One unit of work: all rows over one connection, within one transaction (:class:`gateway.ports.UnitOfWork`)."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from gateway.observability.clock import SystemClock
from gateway.ports import Clock
from gateway.store.accounts import Accounts
from gateway.store.audit_log import AuditLog
from gateway.store.audit_tree import AuditTree
from gateway.store.body_key_rows import BodyKeys
from gateway.store.body_objects import ObjectParts, Objects
from gateway.store.bundles import Bundles
from gateway.store.client_sessions import ClientSessions
from gateway.store.deliveries import Deliveries
from gateway.store.facts import begin
from gateway.store.fetching import Fetching
from gateway.store.jobs import Jobs
from gateway.store.kept import Kept
from gateway.store.links import Links
from gateway.store.logins import Logins
from gateway.store.mailboxes import Mailboxes
from gateway.store.message_keys import KeyMemory
from gateway.store.messages import Messages
from gateway.store.patient_feed import PatientFeed
from gateway.store.patients import Patients
from gateway.store.pop3_hidden import POP3Hidden
from gateway.store.quarantine import Quarantine
from gateway.store.quarantine_folder import QuarantineFolder
from gateway.store.reviews import Reviews
from gateway.store.sealed_bodies import SealedBodies
from gateway.store.shown_fields import ShownFields
from gateway.store.standings import Standings
from gateway.store.unit_time import UnitTime
from gateway.store.views import Views


@dataclass(frozen=True, slots=True)
class UnitContext:
    """What a unit of work must know besides its connection."""

    keys: KeyMemory
    """What seals the bodies of messages and opens them."""
    node: str = "main"
    """Name of this node: who holds a job, whose chain of audit events it is."""
    clock: Clock | None = None
    """Of leases and schedules. None: the database's where several nodes share it, else this machine's."""
    shared: bool = False
    """Whether other nodes may work on the same database."""
    objects: Objects | None = None
    """The bucket where bodies lie."""
    places_bodies: bool = False
    """Whether new bodies go there."""
    may_fetch: bool = True
    """Whether a unit may wait for the bucket. The one writer may not."""


class SQLUnitOfWork:
    """All rows, within one transaction. Lives as long as the unit runs and must not be kept."""

    __slots__ = (
        "accounts",
        "audit",
        "audit_tree",
        "bodies",
        "body_keys",
        "bundles",
        "deliveries",
        "fetching",
        "jobs",
        "kept",
        "links",
        "logins",
        "mailboxes",
        "messages",
        "patient_feed",
        "patients",
        "pop3",
        "quarantine",
        "quarantine_folder",
        "reviews",
        "sessions",
        "shown",
        "standings",
        "views",
    )

    def __init__(self, connection: Connection, context: UnitContext, time: UnitTime) -> None:
        place = ObjectParts(connection, context.objects, places=context.places_bodies, may_fetch=context.may_fetch)
        bodies = self.bodies = SealedBodies(connection, context.keys, place)
        self.messages = Messages(connection, bodies)
        self.quarantine = Quarantine(connection)
        self.jobs = Jobs(connection, time, node=context.node, shared=context.shared)
        self.views = Views(connection)
        self.standings = Standings(connection, self.views)
        self.reviews = Reviews(connection)
        self.mailboxes = Mailboxes(connection, bodies)
        self.shown = ShownFields(connection)
        self.kept = Kept(connection, self.mailboxes)
        self.quarantine_folder = QuarantineFolder(connection, self.mailboxes)
        self.accounts = Accounts(connection)
        self.logins = Logins(connection)
        self.sessions = ClientSessions(connection)
        self.patients = Patients(connection)
        self.patient_feed = PatientFeed(connection)
        self.links = Links(connection)
        self.deliveries = Deliveries(connection, time, node=context.node, shared=context.shared)
        self.bundles = Bundles(connection)
        self.pop3 = POP3Hidden(connection)
        self.fetching = Fetching(connection, time)
        self.body_keys = BodyKeys(connection, context.keys.sealer)
        self.audit = AuditLog(connection, context.node, begin(connection))
        self.audit_tree = AuditTree(connection)

    def finish(self) -> None:
        """Let the audit log answer for every row that was written. Whoever runs a unit calls it, before the commit."""
        self.audit.add_rest(SystemClock().now())
