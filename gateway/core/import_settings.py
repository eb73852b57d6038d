"""The settings of a target of the import hook (``[[importer]]``), and what must hold among them.

Nothing here is secret: signing secrets and what a plug-in needs stand in files of their own, which are named here.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from gateway.core.errors import InputError
from gateway.core.fetching import is_loopback
from gateway.core.retry import IMPORT_SCHEDULE_SECONDS, MAX_RETRY_SECONDS, WEBHOOK_SCHEDULE_SECONDS

FOLDER, WEBHOOK, COMMAND, PLUGIN, MDM, FHIR = "folder", "webhook", "command", "plugin", "mdm", "fhir"
LEGACY_FOLDER_NAME = "folder"
"""The target that ``charts.folder_importer_dir`` makes."""
CREDENTIAL = "credential:"
MAX_SECRETS = 2
MAX_ATTEMPTS = 50
FHIR_SCOPE = (
    "system/Patient.rs system/DocumentReference.crus system/Communication.crus system/Provenance.crus system/Binary.cru"
)
"""What the FHIR adapter does, as SMART 2 names it."""
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,30}[a-z0-9])?\Z")
_CREDENTIAL = re.compile(r"credential:[A-Za-z0-9_.-]{1,100}\Z")
_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::(?P<port>\d{1,5}))?(?:[/?][!-\"$-~]*)?\Z",
    re.ASCII,
)
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?\Z")
_COMMON = frozenset({"name", "kind", "enabled", "at_once", "timeout_seconds", "retry_seconds"})
KEYS: dict[str, frozenset[str]] = {
    FOLDER: frozenset({"directory"}),
    WEBHOOK: frozenset({"url", "allow", "secret_files", "ca_file"}),
    COMMAND: frozenset({"argv"}),
    PLUGIN: frozenset({"plugin", "options_file", "max_memory_mib"}),
    MDM: frozenset({"host", "port", "tls", "ca_file", "certificate_file", "key_file"})
    | {"sending_facility", "receiving_application", "receiving_facility", "assigning_authority", "patient_number"}
    | {"processing_id", "document_type", "retract_event"},
    FHIR: frozenset({"url", "allow", "ca_file", "patient_identifier_system", "bearer_file"})
    | {"client_id", "token_url", "key_file", "kid", "scope"},
}
"""By kind: the keys that only mean something there."""


@dataclass(frozen=True, slots=True)
class ImporterSettings:
    """One target."""

    name: str = ""
    kind: str = ""
    """``folder``, ``webhook``, ``command``, ``plugin``, ``mdm`` or ``fhir``."""
    enabled: bool = True
    at_once: int = 2
    """Deliveries that may be with the target at the same time."""
    timeout_seconds: int = 30
    retry_seconds: tuple[int, ...] = ()
    """Waits after the failed attempts; after the last one the link is set aside. Empty = those of the kind."""
    directory: Path | None = None
    url: str = ""
    allow: tuple[str, ...] = ()
    """Host names and networks (CIDR) to which the webhook, or the FHIR client, may go."""
    secret_files: tuple[str, ...] = ()
    """Files, or ``credential:NAME``, with a ``whsec_`` secret each; two while they are exchanged."""
    ca_file: Path | None = None
    argv: tuple[str, ...] = ()
    plugin: str = ""
    """Name of an entry point of the group ``direct_gateway.importer``."""
    options_file: Path | None = None
    """TOML that is given to the plug-in."""
    max_memory_mib: int = 1024
    host: str = ""
    port: int = 2575
    tls: str = "required"
    """``required`` or ``none``."""
    certificate_file: Path | None = None
    """PEM, with its key in ``key_file``: what we show to a receiver that asks for it."""
    key_file: Path | None = None
    """The key of ``certificate_file``; for ``fhir`` the private key of SMART Backend Services, PEM or JWK."""
    sending_facility: str = ""
    receiving_application: str = ""
    receiving_facility: str = ""
    assigning_authority: str = ""
    """Whose the number in PID-3 is."""
    patient_number: str = "mrn"
    """What PID-3 has: ``mrn`` or the ``id`` of the patient index."""
    processing_id: str = "P"
    document_type: str = "CN"
    retract_event: str = "T11"
    """``T11`` (cancel) or ``T04`` (change of status)."""
    patient_identifier_system: str = ""
    """The patient is searched by his MRN under this system. Empty: his id is that of the FHIR Patient."""
    bearer_file: Path | None = None
    """An access token that others keep fresh, in place of SMART Backend Services."""
    client_id: str = ""
    token_url: str = ""
    """Empty: what the server's ``.well-known/smart-configuration`` says."""
    kid: str = ""
    """The id under which the server knows the key. Empty: that of the JWK, if it has one."""
    scope: str = FHIR_SCOPE

    @property
    def schedule(self) -> tuple[float, ...]:
        """Seconds to wait after each failed attempt."""
        usual = WEBHOOK_SCHEDULE_SECONDS if self.kind == WEBHOOK else IMPORT_SCHEDULE_SECONDS
        return self.retry_seconds or usual


def completed(target: ImporterSettings, base_dir: Path) -> ImporterSettings:
    """The settings with the paths of secrets beginning at the folder of the file.

    Raises:
        InputError: something does not fit; the text names the key and the mend.
    """
    _check(target)
    secrets = (s if s.startswith(CREDENTIAL) else str(base_dir / s) for s in target.secret_files)
    return replace(target, secret_files=tuple(secrets))


def _check(target: ImporterSettings) -> None:
    if not _NAME.match(target.name):
        raise InputError("name must be 1 to 32 of a-z, 0-9, dots and dashes: receipts are kept under it")
    if target.kind not in KEYS:
        raise InputError(f"kind must be one of {', '.join(sorted(KEYS))}; it is {target.kind!r}")
    known = _COMMON | KEYS[target.kind]
    for key in fields(target):
        if key.name not in known and getattr(target, key.name) != key.default:
            raise InputError(f"{key.name} means nothing for kind {target.kind!r}: take it out")
    if len(target.retry_seconds) > MAX_ATTEMPTS or any(
        not 1 <= wait <= MAX_RETRY_SECONDS for wait in target.retry_seconds
    ):
        raise InputError(f"retry_seconds must be up to {MAX_ATTEMPTS} numbers from 1 to {MAX_RETRY_SECONDS}")
    checks = {
        FOLDER: _check_folder, WEBHOOK: _check_webhook, COMMAND: _check_command, PLUGIN: _check_plugin,
        MDM: _check_mdm, FHIR: _check_fhir,
    }  # fmt: skip
    checks[target.kind](target)


def _check_folder(target: ImporterSettings) -> None:
    if target.directory is None:
        raise InputError("directory is missing: name the folder that gets a folder for each patient")


def _check_webhook(target: ImporterSettings) -> None:
    _check_place(target, "url", target.url)
    if not 1 <= len(target.secret_files) <= MAX_SECRETS:
        raise InputError("secret_files must name one file with a whsec_ secret, or two while secrets are exchanged")
    for item in target.secret_files:
        if item.startswith(CREDENTIAL) and not _CREDENTIAL.match(item):
            raise InputError("secret_files: what follows credential: is the name of a credential, not a path")


def _check_place(target: ImporterSettings, key: str, url: str) -> None:
    found = _URL.match(url)
    if found is None or int(found["port"] or 1) not in range(1, 65_536) or not _is_host(found["host"]):
        raise InputError(f"{key} must be https://HOST/PATH, with no user, password, fragment or space in it")
    host = found["host"].strip("[]").lower()
    if found["scheme"] == "http" and not is_loopback(host):
        raise InputError(f"{key} must begin with https: (http: is taken for a loopback address, as 127.0.0.1, only)")
    if not target.allow:
        raise InputError(f'allow is empty: list the host or its network, as in allow = ["{host}"]')
    for item in target.allow:
        _check_allowed(item)


def _is_host(text: str) -> bool:
    """Whether what stands in brackets is an address: whoever takes the URL apart later would raise."""
    try:
        return not text.startswith("[") or ipaddress.ip_address(text[1:-1]).version == 6
    except ValueError:
        return False


def _check_allowed(item: str) -> None:
    try:
        ipaddress.ip_network(item)
    except ValueError:
        if not _HOST.match(item) or item.replace(".", "").isdigit():
            raise InputError("allow: each entry is a host name in lower case, or a network as 10.1.2.0/24") from None


def _check_command(target: ImporterSettings) -> None:
    if not target.argv or not target.argv[0].startswith("/"):
        raise InputError('argv must begin with the whole path of a program, as in argv = ["/usr/local/bin/to-ehr"]')
    if any("\0" in word for word in target.argv):
        raise InputError("argv must hold no NUL")


def _check_plugin(target: ImporterSettings) -> None:
    if not target.plugin:
        raise InputError("plugin is missing: name it; direct-gateway plugin list shows what is installed")


def _check_mdm(target: ImporterSettings) -> None:
    if not target.host or any(char.isspace() or not char.isprintable() for char in target.host):
        raise InputError("host is missing: name the machine of the receiver, as in its certificate")
    if not target.assigning_authority:
        raise InputError("assigning_authority is missing: name whose the patient's number is, as the receiver has it")
    for key, choices in (
        ("tls", ("required", "none")),
        ("patient_number", ("mrn", "id")),
        ("processing_id", ("P", "T", "D")),
        ("retract_event", ("T11", "T04")),
    ):
        if getattr(target, key) not in choices:
            raise InputError(f"{key} must be one of {', '.join(choices)}")
    if (target.certificate_file is None) != (target.key_file is None):
        raise InputError("certificate_file and key_file go together")


def _check_fhir(target: ImporterSettings) -> None:
    _check_place(target, "url", target.url)
    if "?" in target.url:
        raise InputError("url must be the base of the FHIR server, without a query, as https://ehr.example/fhir/r4")
    if target.token_url:
        _check_place(target, "token_url", target.token_url)
    if target.bearer_file is not None and target.client_id:
        raise InputError("bearer_file and client_id are two ways to authenticate: take one out")
    if bool(target.client_id) != (target.key_file is not None):
        raise InputError("client_id and key_file go together: SMART Backend Services needs both")
    for key in ("token_url", "kid"):
        if getattr(target, key) and not target.client_id:
            raise InputError(f"{key} means nothing without client_id")
    for key in ("client_id", "kid", "scope", "patient_identifier_system"):
        if not all(" " <= char <= "~" for char in getattr(target, key)):
            raise InputError(f"{key} must be printable ASCII")
    if not target.scope.strip() or any(mark in target.patient_identifier_system for mark in " |,$\\"):
        raise InputError("scope must not be empty, and patient_identifier_system a URI, as urn:oid:1.2.3")


def usable_place(target: ImporterSettings, url: str) -> bool:
    """Whether a URL that the other side told may be used: of the form that a setting must have."""
    try:
        _check_place(target, "url", url)
    except InputError:
        return False
    return True


def check_together(targets: Sequence[ImporterSettings], *, legacy_folder: bool) -> None:
    """Raise InputError when two targets have one name."""
    names = {LEGACY_FOLDER_NAME} if legacy_folder else set()
    for target in targets:
        if target.name in names:
            mend = "each needs its own"
            if legacy_folder and target.name == LEGACY_FOLDER_NAME:
                mend = 'charts.folder_importer_dir is one of them; set it to "" or choose another name'
            raise InputError(f"two [[importer]] have the name {target.name}: {mend}")
        names.add(target.name)
