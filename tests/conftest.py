"""Fixtures that more than one folder of tests uses."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.fault_report import pytest_terminal_summary, report
from tests.support.gateway_process import Practice, remove_templates
from tests.support.pki import Authority

__all__ = ["pytest_terminal_summary", "report"]

# How long an example takes depends on what else the machine does.
settings.register_profile("gateway", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gateway")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_finish() -> None:
    """Thousands of collected tests stay to the end: a garbage collection need not go through them each time."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    remove_templates()


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
