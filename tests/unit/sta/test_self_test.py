"""The start-up self-test: complete, green on a good library, red on each kind of bad one (S/MIME rules 2 and 22)."""

from __future__ import annotations

import json
import shutil
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from gateway.core.errors import SelfTestError
from gateway.sta import self_test
from gateway.sta.algorithm_policy import CONTENT_ENCRYPTIONS, DIGESTS, KEY_AGREEMENTS, KEY_WRAPS, OAEP_DIGESTS
from gateway.sta.self_test import run_self_test
from tests.support.make_known_answers import Maker, known_answers


def test_a_good_library_passes_and_every_algorithm_of_the_matrix_was_asked() -> None:
    passed = set(run_self_test())
    assert {"implicit rejection", "tag floor"} <= passed
    for table in (DIGESTS, CONTENT_ENCRYPTIONS, KEY_WRAPS):
        assert {row.name for row in table.values() if row.allowed} <= passed
    assert {f"rsa-oaep-{digest}" for digest in OAEP_DIGESTS} | {"rsa-pkcs1v15"} <= passed
    assert {f"{row.family}-{row.digest}" for row in KEY_AGREEMENTS.values() if row.allowed} <= passed
    assert {"ecdh P-256", "ecdh P-384", "ecdh X25519"} <= passed
    signatures = {f"{scheme}-{digest}" for scheme in ("rsa-pkcs1v15", "rsa-pss") for digest in ("sha256", "sha512")}
    assert signatures | {"ecdsa-p256-sha256", "ecdsa-p384-sha384", "ed25519"} <= passed


def test_a_library_that_tells_wrong_padding_apart_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Explicit:
        """An old library: an error for most wrong paddings."""

        def __init__(self, key: rsa.RSAPrivateKey) -> None:
            self.key = key
            self.key_size = key.key_size
            self.public_key = key.public_key

        def decrypt(self, _data: bytes, _padding: Any) -> bytes:
            raise ValueError("decryption failed")

    genuine = self_test._rejects_implicitly
    monkeypatch.setattr(self_test, "_rejects_implicitly", lambda key: genuine(Explicit(key)))  # type: ignore[arg-type]
    with pytest.raises(SelfTestError, match="implicit rejection") as refused:
        run_self_test()
    assert "pip install" in str(refused.value)
    # The operator may accept it: the agent continues with a random key of its own in any case.
    assert "implicit rejection" not in run_self_test(require_implicit_rejection=False)


def test_a_library_that_takes_a_short_tag_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_test, "decrypt_aead", lambda *_: b"anything")
    with pytest.raises(SelfTestError, match="tag floor"):
        run_self_test()


def _document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(files("gateway.sta").joinpath("known_answers.json").read_text())
    return document


def _leaves() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for section in ("digests", "key_transports", "key_derivations", "key_wraps", "contents"):
        found += [(section, name) for name in _document()[section]]
    return found


def _bend(answer: Any) -> Any:
    """The same answer with one bit or character changed."""
    if isinstance(answer, dict):
        return answer | {"tag": _bend(answer["tag"])}
    return answer[:-5] + ("1" if answer[-5] != "1" else "2") + answer[-4:]


@pytest.mark.parametrize("path", _leaves(), ids="/".join)
def test_each_wrong_answer_is_noticed(path: tuple[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    document = _document()
    section, name = path
    document[section][name] = _bend(document[section][name])
    (tmp_path / "known_answers.json").write_text(json.dumps(document))
    monkeypatch.setattr(self_test, "files", lambda _package: tmp_path)
    with pytest.raises(SelfTestError):
        run_self_test()


@pytest.mark.parametrize("index", range(len(_document()["signatures"])))
def test_each_wrong_signature_is_noticed(index: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    document = _document()
    entry = document["signatures"][index]
    entry[2] = _bend(entry[2][:40]) + entry[2][40:]
    (tmp_path / "known_answers.json").write_text(json.dumps(document))
    monkeypatch.setattr(self_test, "files", lambda _package: tmp_path)
    with pytest.raises(SelfTestError, match=entry[0]):
        run_self_test()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl command")
def test_fresh_answers_of_the_openssl_command_are_right_as_well(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (tmp_path / "known_answers.json").write_text(json.dumps(known_answers(Maker(Path(folder)))))
    monkeypatch.setattr(self_test, "files", lambda _package: tmp_path)
    assert len(run_self_test()) > 30
