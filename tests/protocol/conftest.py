"""What several scripts against real daemons share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.gateway_process import Practice
from tests.support.nodes import make_nodes
from tests.support.pki import Authority
from tests.support.postgresql import shared_cluster


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, partner_ca: Authority) -> Iterator[list[Practice]]:
    """Two running nodes of one practice, on one PostgreSQL database."""
    nodes = make_nodes(shared_cluster(), tmp_path_factory.mktemp("nodes"), partner_ca.pem, 2)
    try:
        for node in nodes:
            node.start()
        yield nodes
    finally:
        for node in nodes:
            node.stop()
