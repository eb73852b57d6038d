"""Makes a working practice in a folder: settings, keys, anchors, database and the first login.

Everything is made in a staging folder inside the practice's own, reaches the disk, and is then moved up one by
one; ``gateway.toml`` moves last. A folder with it is a practice and is never touched again; a folder without it
that has the staging folder is half made (a crash), and the next ``init`` begins anew. A lock on the folder keeps
two of them apart.

Failure modes: ``ConflictError`` when the folder is a practice or has other things of the same names (nothing is
touched), ``InputError`` for a wrong domain, address, port or login; an ``OSError`` as it comes.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from gateway.cli.config_template import HEADER, Overrides, render
from gateway.cli.development_keys import write_identities, write_private, write_tls
from gateway.cli.logins import add_first_login
from gateway.core.address import normalise, parse_address, parse_domain
from gateway.core.errors import ConflictError, InputError
from gateway.keys.body_key_file import KeyFile
from gateway.keys.head_signing import make_signing_key
from gateway.observability.clock import SystemClock
from gateway.settings import IMAPSettings, load

STAGING = ".init-in-progress"
MADE = ("data", "certs", "imap-login.txt", "gateway.toml")
"""What is moved up, in this order: the settings file makes it a practice."""
MAX_PORT = 65_535
LOCAL_HOSTS = frozenset({"127.0.0.1", "::1", "0.0.0.0", "::", "localhost"})


@dataclass(frozen=True, slots=True)
class Ports:
    """TCP ports. 0 = off."""

    smtp: int
    imap: int
    imaps: int
    http: int
    submission: int

    def __post_init__(self) -> None:
        named = {
            "--smtp-port": self.smtp,
            "--imap-port": self.imap,
            "--imaps-port": self.imaps,
            "--http-port": self.http,
            "--submission-port": self.submission,
        }
        taken: dict[int, str] = {}
        for option, port in named.items():
            if not 0 <= port <= MAX_PORT:
                raise InputError(f"{option} must be between 0 and {MAX_PORT}")
            if port and port in taken:
                raise InputError(f"{option} and {taken[port]} are both {port}")
            taken[port] = option


@dataclass(frozen=True, slots=True)
class Plan:
    """What to make. Build it with :func:`plan_practice`, which checks the values."""

    directory: Path
    domain: str
    addresses: tuple[str, ...]
    login: str
    host: str
    ports: Ports
    bind_to_domain: bool


@dataclass(frozen=True, slots=True)
class Practice:
    """What was made. The password is nowhere else but in ``login_file``."""

    plan: Plan
    password: str
    identities: tuple[str, ...] = field(default_factory=tuple)

    @property
    def config(self) -> Path:
        return self.plan.directory / "gateway.toml"

    @property
    def certs(self) -> Path:
        return self.plan.directory / "certs"

    @property
    def login_file(self) -> Path:
        return self.plan.directory / "imap-login.txt"

    @property
    def tls_ca_file(self) -> Path:
        return self.certs / "tls" / "ca.pem"

    @property
    def client_server(self) -> str:
        """What a mail client on this machine connects to."""
        return "localhost" if self.plan.host in LOCAL_HOSTS else self.plan.host

    def client_lines(self) -> list[str]:
        """The settings for a mail client, one a line; also the content of ``imap-login.txt``."""
        ports = self.plan.ports
        pairs = [("user", self.plan.login), ("password", self.password), ("server", self.client_server)]
        if ports.imaps:
            pairs.append(("port", f"{ports.imaps} (SSL/TLS)"))
        if ports.imap:
            pairs.append(("port", f"{ports.imap} (STARTTLS)"))
        pairs.append(("CA file", str(self.tls_ca_file)))
        return [f"{name + ':':<10}{value}" for name, value in pairs]


def plan_practice(
    directory: Path,
    domain: str,
    addresses: list[str],
    ports: Ports,
    *,
    host: str = "127.0.0.1",
    login: str | None = None,
    bind_to_domain: bool = False,
) -> Plan:
    """Check the values and return the plan. An address without ``@`` is a local part of the domain.

    Raises:
        InputError: names which value is wrong and why.
    """
    domain = parse_domain(domain)
    whole = [address if "@" in address else f"{address}@{domain}" for address in addresses]
    normal = tuple(dict.fromkeys(normalise(address) for address in whole))
    for address in normal:
        if parse_address(address).domain != domain:
            raise InputError(f"{address} is not in the domain {domain}")
    if not normal:
        raise InputError("at least one --address is needed")
    _check_host(host)
    name = (login or normal[0]).strip()
    if not name or not name.isprintable() or any(char.isspace() for char in name):
        raise InputError("--login must be a name without spaces")
    return Plan(directory.absolute(), domain, normal, name, host, ports, bind_to_domain)


def _check_host(host: str) -> None:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if host != "localhost":
            try:
                parse_domain(host)
            except InputError:
                raise InputError(f"--host must be a network address or a host name; it is {host!r}") from None


def port_beside(imap_port: int, taken: set[int], host: str) -> int:
    """Return a port for IMAP with TLS from the first byte, when only the port with STARTTLS was chosen.

    It keeps the distance of the defaults (1143 and 1993) and goes on from there to one that is not taken by the
    practice's other ports and free at this moment, so that several practices on one machine need no further options.
    """
    defaults = IMAPSettings()
    if imap_port in {0, defaults.port}:
        return defaults.tls_port
    first = imap_port + defaults.tls_port - defaults.port
    if first > MAX_PORT:
        first = imap_port - (defaults.tls_port - defaults.port)
    for candidate in chain(range(first, MAX_PORT + 1), range(1024, first)):
        if candidate not in taken and _is_free(host, candidate):
            return candidate
    return defaults.tls_port


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError:
        return False
    return True


async def make_practice(plan: Plan) -> Practice:
    """Make the practice; see the module's docstring for the order and the failures."""
    is_new = not plan.directory.exists()
    _refuse_what_is_there(plan.directory)
    plan.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with _locked(plan.directory):
            _refuse_what_is_there(plan.directory)
            _remove_half_made(plan.directory)
            staging = plan.directory / STAGING
            staging.mkdir(mode=0o700)
            try:
                practice = await _stage(plan, staging)
            except BaseException:
                shutil.rmtree(staging)
                raise
            _publish(plan.directory, staging)
    except BaseException:
        if is_new and plan.directory.is_dir() and not any(plan.directory.iterdir()):
            plan.directory.rmdir()
        raise
    return practice


def _refuse_what_is_there(directory: Path) -> None:
    if directory.exists() and not directory.is_dir():
        raise ConflictError(f"{directory} is not a folder; choose another name")
    if (directory / "gateway.toml").exists():
        raise ConflictError(f"{directory} is a practice already; nothing was changed. Choose another folder")
    if (directory / STAGING).exists():
        return
    there = [name for name in MADE if (directory / name).exists()]
    if there:
        raise ConflictError(f"{directory} has {', '.join(there)} already; nothing was changed. Choose another folder")


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConflictError(f"another init is at work in {directory}") from None
        yield
    finally:
        os.close(handle)


def _remove_half_made(directory: Path) -> None:
    """Remove what an init left that did not come to its end. Nothing has ever used it: there were no settings."""
    if not (directory / STAGING).exists():
        return
    for name in (*MADE, STAGING):
        path = directory / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _publish(directory: Path, staging: Path) -> None:
    for path in sorted(staging.rglob("*")):
        _sync(path)
    _sync(staging)
    for name in MADE:
        (staging / name).rename(directory / name)
        _sync(directory)
    staging.rmdir()
    _sync(directory)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


async def _stage(plan: Plan, staging: Path) -> Practice:
    (staging / "data").mkdir(mode=0o700)
    certs = staging / "certs"
    certs.mkdir(mode=0o700)
    now = SystemClock().now()
    identities = write_identities(certs, plan.domain, plan.addresses, now, bind_to_domain=plan.bind_to_domain)
    KeyFile(certs / "store" / "bodies.keys").create(now)
    tls = certs / "tls"
    write_tls(tls / "server.cert.pem", tls / "server.key.pem", plan.host, plan.domain, now)
    make_signing_key(certs / "audit" / "heads.key.pem")
    config = staging / "gateway.toml"
    write_private(config, render(_overrides(plan), _header(plan)).encode())
    from gateway.accounts.passwords import generate_password  # noqa: PLC0415 - heavy, not needed to check a command line
    from gateway.services import open_services  # noqa: PLC0415 - the same

    password = generate_password()
    # The environment's overrides belong to the daemon that runs, not to what is made here.
    async with open_services(load(config, {})) as services:
        await add_first_login(services, plan.addresses, plan.login, password)
    for path in (staging / "data").iterdir():
        path.chmod(0o600)
    practice = Practice(plan, password, identities)
    write_private(staging / "imap-login.txt", ("\n".join(practice.client_lines()) + "\n").encode())
    return practice


def _header(plan: Plan) -> str:
    return HEADER.replace("the settings of one gateway.", f"the settings of {plan.domain}.")


def _overrides(plan: Plan) -> Overrides:
    ports = plan.ports
    return {
        ("practice", "name"): plan.domain,
        ("practice", "domains"): [plan.domain],
        ("practice", "addresses"): list(plan.addresses),
        ("smtp", "host"): plan.host,
        ("smtp", "port"): ports.smtp,
        ("smtp", "hostname"): plan.domain,
        ("imap", "host"): plan.host,
        ("imap", "port"): ports.imap,
        ("imap", "tls_port"): ports.imaps,
        ("http", "port"): ports.http,
        ("submission", "host"): plan.host,
        ("submission", "port"): ports.submission,
    }
