"""Fixtures that more than one folder of tests uses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gateway_process import Practice
from tests.support.pki import Authority

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public vectors and samples beside the checkout; skips by name when it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the shared data folder (../shared/data) is not here")
    return SHARED_DATA


@pytest.fixture(scope="session")
def partner_ca() -> Authority:
    """The certification authority of a community that the practice trusts."""
    return Authority.root("Partner Community CA", slot=1)


@pytest.fixture(scope="session")
def stranger_ca() -> Authority:
    """An authority that nobody trusts."""
    return Authority.root("Stranger CA", slot=2)


@pytest.fixture
def practice(tmp_path: Path, partner_ca: Authority) -> Iterator[Practice]:
    """A running practice that trusts the partner community."""
    made = Practice.make(tmp_path / "practice")
    made.trust(partner_ca.pem)
    made.start()
    try:
        yield made
    finally:
        made.stop()
