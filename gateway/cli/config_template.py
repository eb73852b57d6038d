"""The commented configuration file, made from the settings themselves.

``init`` writes it for a new practice and ``config/gateway.toml`` is the same text with the defaults; a test keeps
the two and ``gateway/settings`` in step, so that no key is without a sentence and no sentence without a key.
Run ``python -m gateway.cli.config_template > config/gateway.toml`` after a change of the settings.

Only values that TOML and the settings share are written: strings, whole numbers, booleans and lists of strings.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

from gateway.settings import ARRAYS, Settings

Overrides = Mapping[tuple[str, str], Any]
"""Values by (section, key) that differ from the defaults."""

HEADER = """\
# direct-gateway: the settings of one gateway. This is TOML.
#
# A relative path begins at the folder of this file. A misspelt key is an error that names the nearest known key.
# DIRECTGW__SECTION__KEY=value in the environment overrides a key: DIRECTGW__SMTP__PORT=25.
# Check the file without touching anything:   direct-gateway config check --config FILE
"""

SECTIONS: dict[str, str] = {
    "practice": "Who we are. Mail is accepted for these domains and addresses, and for no other.",
    "store": "Where everything is kept: a SQLite file, or PostgreSQL for several nodes. Back up it and the keys.",
    "s3": 'The bucket with Object Lock for store.bodies = "s3". docs/s3.md tells how to make it.',
    "tls": "The certificate that the SMTP, IMAP and POP3 listeners show.",
    "smtp": "Mail from other HISPs. Port 25 needs a privilege: forward it here, or grant CAP_NET_BIND_SERVICE.",
    "imap": "The inbox for mail clients. No login travels in clear text: TLS or STARTTLS comes first.",
    "pop3": "The inbox for programs that speak POP3 only; off until a port is set. docs/pop3.md tells what it does.",
    "accounts": "Logins of mail clients. docs/users.md tells of app passwords, sessions and tokens.",
    "oauth": "The authority whose access tokens log in to IMAP (OAUTHBEARER). An empty issuer = none.",
    "http": "Health and readiness for the operator (/healthz, /readyz). Keep it on a private address.",
    "submission": "Kept for mail clients that send. Sending is not part of this release: nothing listens yet.",
    "trust": "Private keys, trust anchors and the rules of the Security/Trust Agent.",
    "charts": "Linking to patients, and the import hook that puts a linked message on a chart.",
    "adt": "An HL7 v2 feed that keeps the patient index up to date; off until a port is set. docs/hl7.md tells how.",
    "jobs": "The workers that judge, file, link and import. The defaults suit a practice.",
    "audit": "The audit log cannot be switched off. Its signed heads show elsewhere what no database can show itself.",
    "log": "Logs go to standard error. They hold no addresses, subjects or names.",
}

ARRAY_SECTIONS: dict[str, str] = {
    "fetch": "An upstream mailbox whose mail is fetched; one such block for each. docs/fetch.md tells how.",
    "importer": "Where linked messages go besides; one such block for each target. docs/import-hook.md tells how.",
}

ARRAY_EXAMPLES: dict[str, dict[str, Any]] = {
    "fetch": {
        "name": "upstream",
        "host": "imap.hisp.example",
        "port": 993,
        "username": "clinic",
        "password_file": "upstream-password.txt",
        "addresses": ["front-desk@direct.example.org"],
        "after": "seen",
    },
    "importer": {
        "name": "ehr",
        "kind": "webhook",
        "url": "https://ehr.example/direct",
        "allow": ["ehr.example"],
        "secret_files": ["ehr-webhook.secret"],
    },
}
"""What stands in the commented block where the default would not do."""

ARRAY_COMMENTS: dict[str, dict[str, str]] = {
    "fetch": {
        "name": "What it is called here: a-z, 0-9, dots and dashes. Under a new name all is fetched anew.",
        "protocol": '"imap" or "pop3".',
        "host": "The server's name, as in its certificate.",
        "port": "0 = the usual one: 993 or 143 for imap, 995 or 110 for pop3.",
        "tls": '"implicit" from the first byte, or "starttls". "none" is taken for a loopback address only.',
        "ca_file": "PEM: the only authorities that may vouch for the server. Empty = those of the system.",
        "username": "The login name.",
        "password_file": "A file with the password, for this program alone (chmod 600); read at each login.",
        "oauth_token_file": "Instead of it: a file with an access token (XOAUTH2), kept fresh by others.",
        "mailbox": "The folder to fetch from.",
        "addresses": "The Direct addresses whose mail lies there; each has an inbox here.",
        "after": 'Upstream, after the commit: "seen", "flag:NAME" or "move:FOLDER"; for pop3 "leave" or "delete".',
        "poll_seconds": "How often to look.",
        "idle": "Let an imap server that can (IDLE) tell of new mail at once, between the looks.",
        "max_message_mib": "A larger message is set aside by name.",
        "enabled": "false = leave it alone.",
    },
    "importer": {
        "name": "What it is called here; receipts are kept under it. A new name is a new target.",
        "kind": '"webhook", "command", "plugin", "mdm", "fhir" or "folder".',
        "enabled": "false = nothing is sent; new links go on waiting for it.",
        "at_once": "How many links may be with it at the same time.",
        "timeout_seconds": "No answer for so long is a failure, and tried again.",
        "retry_seconds": "Waits after failed attempts, as in [5, 60, 3600]; then it is set aside. [] = as usual.",
        "directory": "folder: gets a folder for each patient, in it one for each link.",
        "url": "webhook: where it is posted to. fhir: the base of the server. https. docs/fhir.md tells how.",
        "allow": "webhook, fhir: host names, or networks as 10.1.2.0/24, that it may go to.",
        "secret_files": "webhook: a file with the whsec_ secret (chmod 600), or credential:NAME; two to exchange it.",
        "ca_file": "webhook, mdm, fhir: PEM, the only authorities that may vouch for the server. Empty = the system's.",
        "argv": "command: the program, its path beginning with /, and its arguments. No shell.",
        "plugin": "plugin: its name, as in: direct-gateway plugin list.",
        "options_file": "plugin: a TOML file that is given to it (chmod 600). Empty = none.",
        "max_memory_mib": "plugin: its process gets no more.",
        "host": "mdm: the machine that listens with MLLP, as in its certificate. docs/hl7.md tells how.",
        "port": "mdm: its port.",
        "tls": 'mdm: "required", or "none": documents then go over the network in clear text.',
        "certificate_file": "mdm: the certificate that we show, PEM. Empty = none.",
        "key_file": "mdm: its key. fhir: the private key behind client_id, PEM or JWK. chmod 600.",
        "sending_facility": "mdm: MSH-4.",
        "receiving_application": "mdm: MSH-5.",
        "receiving_facility": "mdm: MSH-6.",
        "assigning_authority": "mdm: PID-3.4, whose the patient's number is.",
        "patient_number": 'mdm: what PID-3 has, "mrn" or the "id" of the patient index.',
        "processing_id": "mdm: MSH-11.",
        "document_type": "mdm: TXA-2, of table 0270.",
        "retract_event": 'mdm: "T11" cancels the document; "T04" changes its status.',
        "patient_identifier_system": "fhir: whose the MRN is, to search the patient by. Empty = his id is Patient/ID.",
        "bearer_file": "fhir: a file with an access token, kept fresh by others (chmod 600).",
        "client_id": "fhir: our name at the authorization server (SMART Backend Services).",
        "token_url": "fhir: where tokens are given. Empty = what the server says (smart-configuration).",
        "kid": "fhir: the id of the key. Empty = that of the JWK.",
        "scope": "fhir: what is asked for with the token.",
    },
}

COMMENTS: dict[str, dict[str, str]] = {
    "practice": {
        "name": "Shown to people; not used to decide anything.",
        "domains": "Health domains that are local.",
        "addresses": "Direct addresses that have an inbox here.",
    },
    "store": {
        "audit_reserve_mib": "Disk space set aside so that reading goes on, and is recorded, on a full disk. 0 = none.",
        "node": "Name of this node; each needs its own when several share a database. Letters, digits, dashes.",
        "url": "sqlite:/// and a path, or postgresql://user@host/database without a password (docs/postgresql.md).",
        "password_file": "PostgreSQL: holds the role's password. Empty = as libpq finds it (PGPASSFILE, certificate).",
        "schema": "PostgreSQL: the schema that holds the tables.",
        "frozen_after_seconds": "PostgreSQL: a node that stops within a commit for so long loses its turn.",
        "group_commit_units": "At most this many units of work share one commit to disk ...",
        "group_commit_wait_ms": "... and none waits longer than this for company. 0 = no waiting.",
        "free_space_floor_mib": "Below this much free disk new mail is put off (452) before the disk is full.",
        "key_file": "The keys of the stored messages; keep a copy apart. A path, or credential:NAME (systemd).",
        "bodies": 'Where the sealed bodies of new mail go: "database", or "s3", the bucket of [s3].',
        "key_token_label": "Label of AES keys on the token of [trust] pkcs11_*, to be used instead. Empty = the file.",
    },
    "s3": {
        "bucket": "Its name. Empty = none.",
        "prefix": "What the names of all objects begin with; it ends with a slash.",
        "endpoint_url": "Of a server other than Amazon's: https://HOST. Empty = Amazon's for the region.",
        "region": "Empty = as the environment says, else us-east-1.",
        "retention_days": "How long nobody, root included, can remove a body. It can be lengthened, never shortened.",
        "credentials_file": "In the form of ~/.aws/credentials (chmod 600). Empty = environment or machine role.",
        "ca_file": "PEM: the only authorities that may vouch for the server. Empty = those of the system.",
        "connect_timeout_seconds": "Waiting for a connection to the server ...",
        "read_timeout_seconds": "... and for each piece of an answer.",
        "max_attempts": "How often one request is tried before the sender is told to come again.",
        "uploads": "Bodies sent at the same time.",
        "allow_retention_shortening": "true = start although the server does not lock as it should. Test servers only.",
    },
    "tls": {
        "certificate_file": "PEM, the server's certificate first, then its chain.",
        "key_file": "PEM, readable by this program alone.",
    },
    "smtp": {
        "host": "Address to listen on. 0.0.0.0 or :: = every interface.",
        "port": "Port to listen on.",
        "hostname": "The name in the greeting: what other systems know this server by.",
        "max_message_mib": "A larger message is refused (552).",
        "max_recipients": "Recipients of one message.",
        "max_connections": "Connections in all ...",
        "max_connections_per_peer": "... and from one network address.",
        "max_messages_per_connection": "Then the client must connect again.",
        "max_buffered_mib": "All messages that are arriving at this moment, together (452 when it is used up) ...",
        "max_in_memory_mib": "... and those of them that are in memory; what does not fit goes to the spool.",
        "spool_above_kib": "A larger message lies in the spool while it arrives.",
        "spool_dir": "Files without a name, gone with the process. They hold mail as received: still encrypted.",
        "max_connections_per_minute_per_peer": "From one network, then 421. 0 = no limit.",
        "max_messages_per_minute_per_peer": "From one network, then 451. 0 = no limit.",
        "max_recipients_per_hour_per_peer": "Asked for by one network, then 450. 0 = no limit.",
        "max_commands_without_mail": "A client that only talks is sent away.",
        "command_timeout_seconds": "Waiting for a command (RFC 5321 4.5.3.2 asks for five minutes).",
        "stress_timeout_seconds": "The same while more than 80 % of the connections are in use.",
        "data_timeout_seconds": "Waiting for the end of a message.",
        "min_data_rate_bytes_per_second": "A client that is slower than this is sent away.",
    },
    "imap": {
        "host": "Address to listen on. 0.0.0.0 or :: = every interface.",
        "port": "Port with STARTTLS. 0 = off.",
        "tls_port": "Port with TLS from the first byte. 0 = off.",
        "max_connections": "Connections in all ...",
        "max_connections_per_peer": "... and from one network address.",
        "login_timeout_seconds": "A client must log in within this time.",
        "idle_timeout_minutes": "A silent session ends after this (RFC 9051 5.4 asks for 30 minutes).",
        "max_line_kib": "Longest command line.",
        "max_literal_before_login_kib": "Longest literal that a stranger may send.",
        "max_append_mib": "Largest message that a mail client may put into a folder (a copy of what it sent).",
        "failed_login_delay_seconds": "Waiting before a wrong password is answered. 0 = none.",
        "max_sessions_per_account": "At one time, on each node. A further login gets NO [LIMIT].",
        "deleted_flag": 'Nothing can be deleted. "ignore" answers OK and keeps it; "refuse" answers NO.',
        "views": "Show each mailbox in two parts as well: Unlinked (to do) and Linked (on a chart). See docs/imap.md.",
        "verdict_headers": "Show messages that come from now on with header fields of the verdict. See docs/imap.md.",
        "seen": 'Who reads a message makes it read for all ("shared"), or for himself ("per_user"). See docs/imap.md.',
    },
    "pop3": {
        "host": "Address to listen on. 0.0.0.0 or :: = every interface.",
        "port": "Port with STLS, 110 or 1110 as a rule. 0 = off.",
        "tls_port": "Port with TLS from the first byte, 995 or 1995 as a rule. 0 = off.",
        "max_connections": "Connections in all ...",
        "max_connections_per_peer": "... and from one network address.",
        "login_timeout_seconds": "A client must log in within this time.",
        "idle_timeout_minutes": "A silent session ends after this; RFC 1939 asks for 10 minutes at least.",
        "failed_login_delay_seconds": "Waiting before a wrong password is answered. 0 = none.",
        "folder": "The folder of each login that is shown. A login that has none of this name cannot use POP3.",
    },
    "accounts": {
        "imap_password": '"app_only": mail clients log in with app passwords or tokens, not with the account\'s own.',
        "session_poll_seconds": "How often a node looks for sessions that an operator has ended.",
    },
    "oauth": {
        "issuer": "The authority, exactly as its tokens say it (iss).",
        "audience": "What its tokens call this gateway (aud). Not the id of a mail client.",
        "jwks_file": "Its public keys in a file that something else keeps fresh; read again when it changes.",
        "jwks_url": "Or an https address where they are fetched.",
        "ca_file": "PEM file: the only authorities that may vouch for that address. Empty = those of the system.",
        "jwks_refresh_minutes": "How old fetched keys may grow. A key that is not known is looked for at once.",
        "login_claim": "What in a token is the login: email, preferred_username, or another claim.",
        "algorithms": "How tokens may be signed.",
        "clock_skew_seconds": "How far the clocks of the authority and of this machine may be apart.",
    },
    "http": {
        "host": "Address to listen on.",
        "port": "Port to listen on. 0 = off.",
    },
    "submission": {
        "host": "Address to listen on.",
        "port": "Port to listen on. 0 = off.",
    },
    "trust": {
        "identities_dir": "NAME.cert.pem with NAME.key.pem beside it, or NAME.p12: our addresses and domains.",
        "key_password_file": "A file with the password of encrypted keys and of .p12 files. Empty = no password.",
        "anchors_dir": "Anchors: for all; DOMAIN/ and ADDRESS/ for one; inbound/ and outbound/ for one direction.",
        "crls_dir": "Certificate revocation lists, as files. Empty = none.",
        "pkcs11_module": "The library (.so) of a hardware token whose keys are used as well. Empty = no token.",
        "pkcs11_token": "The label of the token.",
        "pkcs11_pin_file": "A file with its PIN.",
        "fetch": 'CRLs, OCSP and issuers: "public" Internet addresses; only "listed" networks; or "off".',
        "allow_fetch_cidrs": "Private networks from which a URL in a certificate may be fetched as well.",
        "revocation_inbound": '"soft": an unknown status is noted and passes; "hard": it refuses the message.',
        "revocation_outbound": "The same for the certificates of those we send to.",
        "refuse_algorithms": 'Refused on top of what Direct forbids, as in ["aes-128-cbc"]. Nothing lowers the floor.',
        "min_rsa_bits": "Shortest RSA key. 2048 is the floor of Direct.",
        "accept_gcm_in_enveloped_data": "Tolerate AES-GCM in the place where no standard puts it.",
        "accept_unwrapped": "Senders older than version 1.3 leave headers unsigned. false = refuse them.",
        "fetched_mail": 'Fetched mail has no envelope: compare "outer" headers, believe "trace" ones, or "unchecked".',
        "bundle_alarm_percent": "An update that takes away more of a trust bundle than this raises an alarm.",
        "require_implicit_rejection": "false = start even when the crypto library tells wrong RSA padding apart.",
        "workers": "Processors that may judge messages at the same time.",
    },
    "charts": {
        "automatic_links": "false = even an exact match waits for a person.",
        "automatic_by": 'A match by "address_book"; "number": by record number too; "demographics": by those too.',
        "automatic_for": "Our addresses whose mail may be linked without a person. Empty = all.",
        "record_assigners": "Whose our record numbers are, as others write it: OIDs, FHIR systems, namespaces.",
        "folder_importer_dir": "A folder per patient gets the message, its parts and a record. Empty = off.",
    },
    "adt": {
        "host": "Address to listen on, with MLLP.",
        "port": "Port to listen on, 2575 as a rule. 0 = off.",
        "tls": '"required", with the certificate of [tls]; "none" sends patients over the network in clear text.',
        "client_ca_file": "PEM: peers must show a certificate of these authorities. Empty = none is asked for.",
        "allowed_peers": "Networks that may connect, as 10.1.2.3/32.",
        "assigning_authority": "Whose number is the id of a patient here: PID-3.4, its namespace or OID.",
        "identifier_type": "Its type, PID-3.5. Empty = any.",
        "mrn_authority": "Whose number is the medical record number. Empty = the same.",
        "mrn_type": "Its type.",
        "direct_addresses": '"add" to what is documented, or "replace": the feed names all that a patient has.',
        "direct_code": "What marks a Direct address in PID-13 (XTN-2 or XTN-3). Plain e-mail never counts as one.",
        "processing_id": "MSH-11 of what is meant for us. Others, test messages as a rule, are refused.",
        "time_zone": "Of times that name none, as America/Chicago.",
        "max_message_kib": "Longer messages end the connection.",
        "max_connections": "At one time.",
        "idle_timeout_minutes": "A connection without a message is closed after this time.",
        "message_timeout_seconds": "A message that has begun must be whole by then.",
    },
    "jobs": {
        "poll_interval_ms": "How often the queue is looked at when nobody says that there is work.",
        "lease_seconds": "A worker that is silent for this long has lost its job to another.",
        "batch": "Jobs taken at once.",
    },
    "audit": {
        "head_interval_minutes": "How often a signed head is made. What was added since is not protected by it yet.",
        "signing_key_file": "The Ed25519 key that signs the heads; its public half stands beside it.",
        "heads_dir": "Each head becomes a file here: copy them where this machine cannot write. Empty = none.",
    },
    "log": {
        "level": "debug, info, warning or error.",
        "format": "text or json.",
    },
}

EXAMPLE_OVERRIDES: Overrides = {
    ("practice", "name"): "try-out",
    ("practice", "domains"): ["direct.example.org"],
    ("practice", "addresses"): ["front-desk@direct.example.org"],
    ("store", "url"): "sqlite:///../practice/data/gateway.db",
    ("smtp", "spool_dir"): "../practice/data/spool",
    ("store", "key_file"): "../practice/certs/store/bodies.keys",
    ("tls", "certificate_file"): "../practice/certs/tls/server.cert.pem",
    ("tls", "key_file"): "../practice/certs/tls/server.key.pem",
    ("trust", "identities_dir"): "../practice/certs/identities",
    ("trust", "anchors_dir"): "../practice/certs/anchors",
    ("trust", "crls_dir"): "../practice/certs/crls",
    ("charts", "folder_importer_dir"): "../practice/charts",
    ("audit", "signing_key_file"): "../practice/certs/audit/heads.key.pem",
    ("audit", "heads_dir"): "../practice/audit-heads",
}
"""What differs in ``config/gateway.toml``: an example practice in ``practice/``, beside the folder ``config/``."""

EXAMPLE_HEADER = (
    HEADER
    + """\
#
# This file works as it is:   direct-gateway serve --config config/gateway.toml
# The first start makes a try-out practice in the folder practice/, its login in practice/imap-login.txt.
# For a practice of your own, with settings of its own:   direct-gateway init DIR --domain D --address A
"""
)


def sections() -> dict[str, tuple[Field[Any], ...]]:
    """Every section with its keys, in the order of the settings."""
    defaults = Settings()
    plain = (f.name for f in fields(Settings) if f.name != "base_dir" and f.name not in ARRAYS)
    return {name: fields(getattr(defaults, name)) for name in plain}


def toml_value(value: Any) -> str:
    """Write a value as TOML. ``None`` is the empty string: the settings read it as "off"."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    text = "" if value is None else str(value)
    return '"' + "".join(_escape(char) for char in text) + '"'


def _escape(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    return char if char.isprintable() else f"\\U{ord(char):08X}"


def render(overrides: Overrides, header: str = HEADER) -> str:
    """Return the whole commented file: every key, with the default or the given value."""
    defaults = Settings()
    lines = [header.rstrip("\n")]
    for section, keys in sections().items():
        lines += ["", f"# {SECTIONS[section]}", f"[{section}]"]
        for key in keys:
            value = overrides.get((section, key.name), getattr(getattr(defaults, section), key.name))
            lines += [f"# {COMMENTS[section][key.name]}", f"{key.name} = {toml_value(_plain(value))}"]
    for name, kind in ARRAYS.items():
        lines += ["", f"# {ARRAY_SECTIONS[name]}", f"# [[{name}]]"]
        for key in fields(kind):
            value = ARRAY_EXAMPLES[name].get(key.name, key.default)
            lines += [f"#   {ARRAY_COMMENTS[name][key.name]}", f"# {key.name} = {toml_value(_plain(value))}"]
    return "\n".join(lines) + "\n"


def _plain(value: Any) -> Any:
    return value.as_posix() if isinstance(value, Path) else value


if __name__ == "__main__":
    sys.stdout.write(render(EXAMPLE_OVERRIDES, EXAMPLE_HEADER))
