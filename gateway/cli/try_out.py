"""The try-out practice: what lets ``config/gateway.toml`` work as it is.

The example settings name an example domain and a folder that does not exist. At the first ``serve`` that folder is
made, exactly as ``init`` makes one. This happens only when nothing is there at all and the domain is one of the
names that RFC 2606 and RFC 6761 keep for examples: for a real domain a missing file is a mistake in a path, and
new keys in its place would hide it.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from gateway.cli.init_practice import STAGING, Plan, Ports, Practice, make_practice, plan_practice
from gateway.settings import Settings

EXAMPLE_NAMES = ("example", "test", "localhost", "invalid", "example.com", "example.net", "example.org")


def is_example(domain: str) -> bool:
    """Whether the domain is, or is below, a name that nobody can own."""
    return any(domain == name or domain.endswith("." + name) for name in EXAMPLE_NAMES)


def planned(settings: Settings) -> Plan | None:
    """Return what the first ``serve`` makes, or None when these settings are not an untouched try-out."""
    domains, addresses = settings.practice.domains, settings.practice.addresses
    if len(domains) != 1 or not addresses or not is_example(domains[0]):
        return None
    folder = _common_folder(settings)
    if folder is None or (folder.exists() and not (folder / STAGING).exists()):
        return None
    if (folder / "gateway.toml").exists():
        return None
    smtp, imap = settings.smtp, settings.imap
    ports = Ports(smtp.port, imap.port, imap.tls_port, settings.http.port, settings.submission.port)
    return plan_practice(folder, domains[0], list(addresses), ports, host=smtp.host)


def make(plan: Plan) -> Practice:
    """Make the try-out practice."""
    return asyncio.run(make_practice(plan))


def _common_folder(settings: Settings) -> Path | None:
    """The one folder that has the layout of ``init`` under these settings, or None."""
    trust, tls = settings.trust, settings.tls
    folder = trust.identities_dir.parent.parent
    expected = {
        trust.identities_dir: folder / "certs" / "identities",
        trust.anchors_dir: folder / "certs" / "anchors",
        tls.certificate_file: folder / "certs" / "tls" / "server.cert.pem",
        tls.key_file: folder / "certs" / "tls" / "server.key.pem",
        Path(settings.store.url.removeprefix("sqlite:///")): folder / "data" / "gateway.db",
        Path(settings.store.key_file): folder / "certs" / "store" / "bodies.keys",
    }
    return folder.resolve() if all(here == there for here, there in expected.items()) else None
