"""The sections of the file and their keys: frozen and typed, each with its default.

Every duration and size carries its unit in its name. What each key means to people stands in
:mod:`gateway.cli.config_template`; which values it takes in :mod:`gateway.settings.values`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from gateway.core.fetch_settings import FetchSettings
from gateway.core.import_settings import ImporterSettings


@dataclass(frozen=True, slots=True)
class PracticeSettings:
    """Who we are."""

    name: str = "practice"
    domains: tuple[str, ...] = ()
    """Health domains that are local: mail is accepted for these only."""
    addresses: tuple[str, ...] = ()
    """Direct addresses that have an inbox here."""


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Where everything is kept."""

    url: str = "sqlite:///data/gateway.db"
    """``sqlite:///`` and a path, or ``postgresql://user@host/database``."""
    password_file: Path | None = None
    """Holds the password of the PostgreSQL role. None = as libpq finds it (PGPASSFILE, a certificate, peer)."""
    schema: str = "direct_gateway"
    """PostgreSQL: the schema that holds the tables."""
    frozen_after_seconds: int = 10
    """PostgreSQL: a node that stops in the middle of a commit for so long loses its turn to the others."""
    group_commit_units: int = 32
    group_commit_wait_ms: int = 5
    free_space_floor_mib: int = 100
    audit_reserve_mib: int = 16
    """SQLite: disk space set aside for audit rows, so that a full disk locks nobody out of reading. 0 = none."""
    node: str = "main"
    """Name of this node: whose audit events form one chain, who holds a lease. Letters, digits and dashes."""
    key_file: str = "certs/store/bodies.keys"
    """The keys that stored bodies rest on: a path, or ``credential:NAME`` for a credential of systemd."""
    key_token_label: str = ""
    """Label of AES keys on the token of ``[trust] pkcs11_*`` that take the place of the file. Empty = the file."""
    bodies: str = "database"
    """Where the sealed bodies of new mail go: ``database``, or the bucket of ``[s3]``."""


@dataclass(frozen=True, slots=True)
class S3Settings:
    """The bucket with Object Lock that holds bodies when ``store.bodies`` is ``s3``."""

    bucket: str = ""
    prefix: str = "direct-gateway/"
    """What the names of all objects begin with; empty, or ending with a slash."""
    endpoint_url: str = ""
    """Of a server other than Amazon's: https, or http on the loopback. Empty = Amazon's for the region."""
    region: str = ""
    """Empty = what the environment says (AWS_REGION), else us-east-1."""
    retention_days: int = 2192
    """How long nobody can remove a body; the default is six years."""
    credentials_file: Path | None = None
    """A file in the form of ``~/.aws/credentials``, section ``default``. None = environment or role of the machine."""
    ca_file: Path | None = None
    """PEM: the only authorities that may vouch for the server. None = those of the system."""
    connect_timeout_seconds: int = 5
    read_timeout_seconds: int = 15
    max_attempts: int = 2
    uploads: int = 16
    """Bodies that are sent to the bucket at the same time."""
    allow_retention_shortening: bool = False
    """Start although the server lets the retention of an object be shortened. For test servers only."""


@dataclass(frozen=True, slots=True)
class TLSSettings:
    """The certificate that the listeners show."""

    certificate_file: Path = Path("certs/tls/server.cert.pem")
    key_file: Path = Path("certs/tls/server.key.pem")


@dataclass(frozen=True, slots=True)
class SMTPSettings:
    """The STA listener: mail from other HISPs."""

    host: str = "127.0.0.1"
    port: int = 2525
    hostname: str = "localhost"
    max_message_mib: int = 50
    max_recipients: int = 100
    max_connections: int = 500
    max_connections_per_peer: int = 100
    max_messages_per_connection: int = 100
    max_buffered_mib: int = 1024
    """All messages being received at this moment, together, in memory or in the spool."""
    max_in_memory_mib: int = 32
    """Those of them that are not in the spool; when this is used up, smaller ones go to the spool as well."""
    spool_above_kib: int = 256
    """A message that is larger lies in the spool while it arrives."""
    spool_dir: Path = Path("data/spool")
    """Nameless files, of the message as received: still encrypted by its sender."""
    max_connections_per_minute_per_peer: int = 12_000
    """0 = no limit. The default is about twice of what two cores take, so that it stops loops and no sender."""
    max_messages_per_minute_per_peer: int = 12_000
    max_recipients_per_hour_per_peer: int = 720_000
    """Asked for, whether they exist here or not."""
    max_commands_without_mail: int = 100
    command_timeout_seconds: int = 300
    stress_timeout_seconds: int = 10
    """Takes the place of ``command_timeout_seconds`` while more than 80 % of the connections are in use."""
    data_timeout_seconds: int = 600
    min_data_rate_bytes_per_second: int = 500


@dataclass(frozen=True, slots=True)
class IMAPSettings:
    """The local inbox for mail clients."""

    host: str = "127.0.0.1"
    port: int = 1143
    """STARTTLS; no login before it. 0 = off."""
    tls_port: int = 1993
    """Implicit TLS. 0 = off."""
    max_connections: int = 500
    max_connections_per_peer: int = 100
    login_timeout_seconds: int = 60
    idle_timeout_minutes: int = 30
    max_line_kib: int = 64
    max_literal_before_login_kib: int = 4
    max_append_mib: int = 30
    """Of one message that a mail client puts into a folder (a copy of what it sent)."""
    failed_login_delay_seconds: int = 2
    max_sessions_per_account: int = 50
    deleted_flag: str = "ignore"
    """``ignore`` or ``refuse`` (the no-delete rules)."""
    views: bool = True
    """Whether each mailbox has its views Unlinked and Linked as folders."""
    seen: str = "shared"
    r"""Whose \Seen a login is shown: ``shared`` by all who see the mailbox, or ``per_user``."""
    verdict_headers: bool = False
    """Whether messages that are filed from now on are shown with fields of the gateway in their header."""


@dataclass(frozen=True, slots=True)
class POP3Settings:
    """The same inbox for programs that speak POP3 only. Off by default."""

    host: str = "127.0.0.1"
    port: int = 0
    """STLS; no login before it. 0 = off."""
    tls_port: int = 0
    """Implicit TLS. 0 = off."""
    max_connections: int = 200
    max_connections_per_peer: int = 50
    login_timeout_seconds: int = 60
    idle_timeout_minutes: int = 10
    """RFC 1939 section 3 allows no less."""
    failed_login_delay_seconds: int = 2
    folder: str = "INBOX"
    """The folder of each login that is its maildrop."""


@dataclass(frozen=True, slots=True)
class AccountSettings:
    """Who logs in with a mail client, and how."""

    imap_password: str = "any"  # noqa: S105 - the name of a rule
    """``any``, or ``app_only``: a mail client logs in with an app password (or a token), never with the account's."""
    session_poll_seconds: int = 1
    """How often a node looks for sessions that an operator has ended."""


@dataclass(frozen=True, slots=True)
class OAuthSettings:
    """The authority whose access tokens log in to IMAP (OAUTHBEARER, RFC 7628)."""

    issuer: str = ""
    """Empty = off."""
    audience: str = ""
    jwks_file: Path | None = None
    jwks_url: str = ""
    """One of the two."""
    ca_file: Path | None = None
    """PEM: the only authorities that may vouch for the server of ``jwks_url``. None = those of the system."""
    jwks_refresh_minutes: int = 60
    login_claim: str = "email"
    algorithms: tuple[str, ...] = ("RS256", "PS256", "ES256", "EdDSA")
    clock_skew_seconds: int = 60


@dataclass(frozen=True, slots=True)
class HTTPSettings:
    """Health and readiness for the operator; loopback by default. 0 = off."""

    host: str = "127.0.0.1"
    port: int = 8080


@dataclass(frozen=True, slots=True)
class SubmissionSettings:
    """The port kept for mail clients and EHRs that send. Sending is not part of this release."""

    host: str = "127.0.0.1"
    port: int = 1587


@dataclass(frozen=True, slots=True)
class TrustSettings:
    """Keys, anchors and the rules of the Security/Trust Agent."""

    identities_dir: Path = Path("certs/identities")
    """``NAME.cert.pem`` with ``NAME.key.pem`` beside it, or ``NAME.p12``."""
    key_password_file: Path | None = None
    anchors_dir: Path = Path("certs/anchors")
    """Anchors of every local domain; a sub-folder named after a domain or an address holds its own."""
    crls_dir: Path | None = Path("certs/crls")
    pkcs11_module: Path | None = None
    """The library of a hardware token whose keys are used beside the files. None = no token."""
    pkcs11_token: str = ""
    """Label of the token."""
    pkcs11_pin_file: Path | None = None
    fetch: str = "public"
    """Where a URL in a certificate may lead: ``public`` addresses and ``allow_fetch_cidrs``; only ``listed`` ones,
    those of ``allow_fetch_cidrs``; or ``off``."""
    allow_fetch_cidrs: tuple[str, ...] = ()
    """Private address ranges that may be fetched from as well."""
    revocation_inbound: str = "soft"
    """``soft``: unknown revocation is recorded and passes; ``hard``: it refuses."""
    revocation_outbound: str = "hard"
    """The same for the certificates of those we send to (AS-68)."""
    refuse_algorithms: tuple[str, ...] = ()
    """Names of the algorithm matrix that are refused on top of its floor (AS-41)."""
    min_rsa_bits: int = 2048
    accept_gcm_in_enveloped_data: bool = False
    """Tolerate AES-GCM where no RFC puts it (AS-93)."""
    accept_unwrapped: bool = True
    """Accept messages that are not wrapped as message/rfc822, as senders before version 1.3 send them (AS-43)."""
    fetched_mail: str = "outer"
    """What takes the place of the envelope for mail that was fetched: ``outer``, ``trace`` or ``unchecked`` (AS-46)."""
    bundle_alarm_percent: int = 20
    """An update that takes away more anchors of a bundle than this raises an alarm (TB-14)."""
    require_implicit_rejection: bool = True
    """Refuse to start when the cryptographic library tells wrong RSA padding apart."""
    workers: int = 2


@dataclass(frozen=True, slots=True)
class ChartSettings:
    """Linking and the import hook."""

    automatic_links: bool = True
    """False: even an exact match waits for a person."""
    automatic_by: str = "address_book"
    """What links: ``address_book``, with ``number`` an exact record number too, with ``demographics`` those too."""
    automatic_for: tuple[str, ...] = ()
    """Addresses of the practice whose mail may be linked without a person. Empty = all."""
    record_assigners: tuple[str, ...] = ()
    """As whom others name the practice as the assigner of its record numbers: OIDs, FHIR systems, namespaces."""
    folder_importer_dir: Path | None = Path("charts")
    """A folder per patient gets the message, its parts and a JSON record. Empty = off."""


@dataclass(frozen=True, slots=True)
class ADTSettings:
    """The feed of an EHR that tells of its patients: HL7 v2 ADT over MLLP."""

    host: str = "127.0.0.1"
    port: int = 0
    """0 = off."""
    tls: str = "required"
    """``required``, with the certificate of ``[tls]``, or ``none``."""
    client_ca_file: Path | None = None
    """PEM: only peers with a certificate of these authorities may connect. None = none is asked for."""
    allowed_peers: tuple[str, ...] = ("127.0.0.1/32", "::1/128")
    """Networks in CIDR form."""
    assigning_authority: str = ""
    """PID-3.4 (namespace or OID) of the number that is the patient's id here."""
    identifier_type: str = "MR"
    """PID-3.5 of it. Empty = any."""
    mrn_authority: str = ""
    """PID-3.4 of the medical record number. Empty = the same."""
    mrn_type: str = "MR"
    direct_addresses: str = "add"
    """``add`` to the documented ones, or ``replace`` them: the feed then names all of them."""
    direct_code: str = "DIRECT"
    """XTN-2 or XTN-3 that marks a Direct address."""
    processing_id: str = "P"
    """MSH-11 of messages that are meant for this gateway."""
    time_zone: str = "UTC"
    """Of times that name none."""
    max_message_kib: int = 1024
    max_connections: int = 50
    idle_timeout_minutes: int = 60
    message_timeout_seconds: int = 30


@dataclass(frozen=True, slots=True)
class JobSettings:
    """The workers."""

    poll_interval_ms: int = 500
    lease_seconds: int = 60
    batch: int = 20


@dataclass(frozen=True, slots=True)
class AuditSettings:
    """Tree heads of the audit log. The log itself has no switch."""

    head_interval_minutes: int = 60
    signing_key_file: Path = Path("certs/audit/heads.key.pem")
    """Ed25519; the public half stands beside it as ``heads.pub.pem``."""
    heads_dir: Path | None = Path("audit-heads")
    """Each signed head becomes a file here. None = they are kept in the database only."""


@dataclass(frozen=True, slots=True)
class LogSettings:
    """Structured logs on standard error, free of PHI."""

    level: str = "info"
    format: str = "text"
    """``text`` or ``json``."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, one attribute a section of the file."""

    practice: PracticeSettings = field(default_factory=PracticeSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    s3: S3Settings = field(default_factory=S3Settings)
    tls: TLSSettings = field(default_factory=TLSSettings)
    smtp: SMTPSettings = field(default_factory=SMTPSettings)
    imap: IMAPSettings = field(default_factory=IMAPSettings)
    pop3: POP3Settings = field(default_factory=POP3Settings)
    accounts: AccountSettings = field(default_factory=AccountSettings)
    oauth: OAuthSettings = field(default_factory=OAuthSettings)
    http: HTTPSettings = field(default_factory=HTTPSettings)
    submission: SubmissionSettings = field(default_factory=SubmissionSettings)
    trust: TrustSettings = field(default_factory=TrustSettings)
    charts: ChartSettings = field(default_factory=ChartSettings)
    adt: ADTSettings = field(default_factory=ADTSettings)
    jobs: JobSettings = field(default_factory=JobSettings)
    audit: AuditSettings = field(default_factory=AuditSettings)
    log: LogSettings = field(default_factory=LogSettings)
    fetch: tuple[FetchSettings, ...] = ()
    """Upstream mailboxes, one ``[[fetch]]`` each."""
    importer: tuple[ImporterSettings, ...] = ()
    """Targets of the import hook, one ``[[importer]]`` each."""
    base_dir: Path = Path()
    """Folder of the file; every relative path starts here."""


ARRAYS: dict[str, type[FetchSettings | ImporterSettings]] = {"fetch": FetchSettings, "importer": ImporterSettings}
"""What the file has as an array of tables, ``[[name]]``, and what each table is."""
