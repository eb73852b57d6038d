from __future__ import annotations

from pathlib import Path

import pytest

from tests.smime.clinic import Clinic
from tests.unit.sta.trust_world import World
from tests.unit.sta_cms.cms_samples import OpenSSL, openssl_or_skip


@pytest.fixture(scope="session")
def world() -> World:
    return World()


@pytest.fixture(scope="session")
def clinic(world: World) -> Clinic:
    return Clinic(world)


@pytest.fixture
def openssl(tmp_path: Path) -> OpenSSL:
    return openssl_or_skip(tmp_path)


def _folder(shared_data: Path, name: str) -> Path:
    folder = shared_data / "smime" / name
    if not folder.is_dir():
        pytest.skip(f"the vectors of smime/{name} are not here")
    return folder


@pytest.fixture(scope="session")
def attacks(shared_data: Path) -> Path:
    return _folder(shared_data, "attacks")


@pytest.fixture(scope="session")
def examples(shared_data: Path) -> Path:
    return _folder(shared_data, "examples-cms")


@pytest.fixture(scope="session")
def limbo(shared_data: Path) -> Path:
    return _folder(shared_data, "x509-limbo") / "limbo.json"
