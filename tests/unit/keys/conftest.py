"""Tokens for the tests of the keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.softhsm import FaultyToken, SoftToken, build_faulty_library, faulty_token, soft_token


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SoftToken]:
    """A real token without keys."""
    with soft_token(tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture(scope="session")
def faulty_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that fails on demand."""
    return build_faulty_library(tmp_path_factory.mktemp("faulty"))


@pytest.fixture
def faulty(tmp_path: Path, faulty_library: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyToken]:
    """A real token without keys, behind a library that fails on demand."""
    with faulty_token(tmp_path, faulty_library, monkeypatch) as made:
        yield made
