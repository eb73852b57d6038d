"""Settings: a wrong guess is worse than no guess, so everything unknown is refused before a port opens (F40)."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from gateway.core.errors import ConfigurationError
from gateway.settings import Settings, find_config, from_document, load

BASE = Path("/practice")


def test_an_empty_file_gives_every_default() -> None:
    settings = from_document({}, BASE)
    assert settings.smtp.port == 2525
    assert settings.store.url == "sqlite:////practice/data/gateway.db"
    assert settings.trust.anchors_dir == BASE / "certs/anchors"


def test_relative_paths_start_at_the_file_and_absolute_ones_stay() -> None:
    settings = from_document({"trust": {"anchors_dir": "/etc/anchors", "crls_dir": ""}}, BASE)
    assert settings.trust.anchors_dir == Path("/etc/anchors")
    assert settings.trust.crls_dir is None


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"smpt": {}}, "did you mean smtp"),
        ({"smtp": {"prot": 25}}, "did you mean port"),
        ({"smtp": 25}, "must be a section"),
        ({"smtp": {"port": "many"}}, "whole number"),
        ({"smtp": {"port": True}}, "whole number"),
        ({"smtp": {"port": 70_000}}, "between"),
        ({"smtp": {"max_recipients": 0}}, "between"),
        ({"smtp": {"max_message_mib": 2000}}, "max_buffered_mib"),
        ({"imap": {"deleted_flag": "maybe"}}, "ignore, refuse"),
        ({"charts": {"automatic_links": "perhaps"}}, "true or false"),
        ({"charts": {"automatic_by": "guess"}}, "must be one of address_book, demographics, number"),
        ({"charts": {"automatic_for": ["nobody"]}}, "charts.automatic_for"),
        ({"charts": {"record_assigners": ["1.2.3", " "]}}, "must not hold an empty text"),
        ({"practice": {"domains": ["*.example.org"]}}, "not a domain"),
        ({"practice": {"addresses": ["no-domain"]}}, "not a Direct address"),
        ({"trust": {"allow_fetch_cidrs": ["10.0.0.0/99"]}}, "allow_fetch_cidrs"),
        ({"store": {"url": "mysql://db/mail"}}, "sqlite:///"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name(document: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        from_document(document, BASE)


def test_addresses_and_domains_are_normalised() -> None:
    settings = from_document({"practice": {"domains": ["Direct.Example"], "addresses": ["Inbox@Direct.Example"]}}, BASE)
    assert settings.practice.domains == ("direct.example",)
    assert settings.practice.addresses == ("inbox@direct.example",)


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text('[smtp]\nport = 25\n[practice]\ndomains = ["a.example"]\n')
    changed = {"DIRECTGW__SMTP__PORT": "2626", "DIRECTGW__PRACTICE__DOMAINS": "b.example, c.example", "OTHER": "x"}
    settings = load(path, changed)
    assert settings.smtp.port == 2626
    assert settings.practice.domains == ("b.example", "c.example")
    with pytest.raises(ConfigurationError, match="SECTION__KEY"):
        load(path, {"DIRECTGW__SMTP": "x"})


@pytest.mark.parametrize("text", ["[smtp\n", "\x00", "smtp = "])
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match="not valid TOML"):
        load(path, {})


def test_a_missing_file_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DIRECTGW_CONFIG", raising=False)
    with pytest.raises(ConfigurationError, match="direct-gateway init"):
        find_config(None)
    with pytest.raises(ConfigurationError, match="direct-gateway init"):
        find_config(str(tmp_path / "absent.toml"))
    (tmp_path / "gateway.toml").write_text("")
    assert find_config(str(tmp_path)) == tmp_path / "gateway.toml"
    assert find_config(None) == Path("gateway.toml")


def test_reading_settings_touches_nothing(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text("")
    load(path, {})
    assert list(tmp_path.iterdir()) == [path]


def test_every_section_of_settings_is_a_section_of_the_file() -> None:
    names = [f.name for f in fields(Settings) if f.name not in {"base_dir", "fetch", "importer"}]
    assert from_document({name: {} for name in names}, BASE) == from_document({}, BASE)
