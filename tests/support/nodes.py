"""Several real daemons on one PostgreSQL database: one practice, copied for each node, with ports of its own."""

from __future__ import annotations

import itertools
import os
import shutil
from dataclasses import replace
from pathlib import Path

from tests.support.gateway_process import Practice, free_ports
from tests.support.postgresql import ROLE, Cluster

WRITER = "gateway_writer"
_NUMBERS = itertools.count(1)


def make_nodes(
    cluster: Cluster,
    folder: Path,
    anchor_pem: bytes,
    count: int,
    *,
    port: int | None = None,
    **jobs: int,
) -> list[Practice]:
    """Make the practice and its tables, and a folder for each node; nothing is started.

    ``port``: where the nodes believe the database to be (a proxy); ``jobs``: settings of [jobs].
    """
    if not cluster.sql(f"SELECT 1 FROM pg_roles WHERE rolname = '{WRITER}'"):  # noqa: S608 - our own name
        cluster.sql(f"CREATE ROLE {WRITER} LOGIN")
    first = Practice.make(folder / "n1")
    first.trust(anchor_pem)
    if jobs:
        first.set("jobs", **jobs)
    first.set("store", frozen_after_seconds=2)
    schema = f"nodes{next(_NUMBERS)}_{os.getpid()}"
    first.use_postgresql(cluster.url(WRITER), schema, owner_url=cluster.url(ROLE))
    nodes = [first]
    for number in range(2, count + 1):
        place = folder / f"n{number}"
        shutil.copytree(first.directory, place)
        smtp, imap, imaps, http = free_ports(4)
        node = replace(first, directory=place, smtp_port=smtp, imap_port=imap, imaps_port=imaps, http_port=http)
        node.set("smtp", port=smtp)
        node.set("imap", port=imap, tls_port=imaps)
        node.set("http", port=http)
        nodes.append(node)
    for number, node in enumerate(nodes, 1):
        node.set("store", node=f"n{number}", url=cluster.url(WRITER, port=port))
    return nodes
