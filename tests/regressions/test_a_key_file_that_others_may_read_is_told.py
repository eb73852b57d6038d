"""Who reads the key file and the database reads all mail; a gateway used to start without a word about its mode."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from gateway.keys.body_key_file import KeyFile
from tests.support.store_samples import NOW


@pytest.mark.parametrize(("mode", "told"), [(0o600, 0), (0o400, 0), (0o640, 1), (0o604, 1)])
def test_it_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, told: int) -> None:
    path = tmp_path / "bodies.keys"
    KeyFile(path).create(NOW)
    path.chmod(mode)
    ring = KeyFile(path)
    with caplog.at_level(logging.WARNING):
        assert len(ring.ids()) == 1
        ring.reload()
    assert caplog.text.count("body_key_file_open_to_others") == told
    assert str(tmp_path) not in caplog.text
