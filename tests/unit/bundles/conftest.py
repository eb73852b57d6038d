from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.store_samples import open_store
from tests.unit.bundles.bundle_world import BundleWorld


@pytest.fixture
def world(tmp_path: Path) -> Iterator[BundleWorld]:
    with open_store(tmp_path) as store:
        yield BundleWorld(store)
