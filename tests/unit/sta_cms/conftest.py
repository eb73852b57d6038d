from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.sta_cms.cms_samples import OpenSSL, openssl_or_skip


@pytest.fixture
def openssl(tmp_path: Path) -> OpenSSL:
    return openssl_or_skip(tmp_path)


@pytest.fixture(scope="session")
def attacks(shared_data: Path) -> Path:
    folder = shared_data / "smime" / "attacks"
    if not folder.is_dir():
        pytest.skip("the attack vectors (smime/attacks) are not here")
    return folder


@pytest.fixture(scope="session")
def examples(shared_data: Path) -> Path:
    folder = shared_data / "smime" / "examples-cms"
    if not folder.is_dir():
        pytest.skip("the CMS examples of RFC 9216 keys (smime/examples-cms) are not here")
    return folder
