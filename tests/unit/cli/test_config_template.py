"""The commented file, the settings and their defaults agree."""

import tomllib
from pathlib import Path

from gateway.cli.config_template import (
    COMMENTS,
    EXAMPLE_HEADER,
    EXAMPLE_OVERRIDES,
    SECTIONS,
    render,
    sections,
    toml_value,
)
from gateway.settings import Settings, from_document, load

ROOT = Path(__file__).parents[3]


def test_every_key_has_a_sentence_and_every_sentence_a_key() -> None:
    keys = {section: {key.name for key in fields} for section, fields in sections().items()}
    assert {section: set(comments) for section, comments in COMMENTS.items()} == keys
    assert set(SECTIONS) == set(keys)
    assert all(text.strip() for comments in COMMENTS.values() for text in comments.values())


def test_the_rendered_defaults_are_the_defaults(tmp_path: Path) -> None:
    document = tomllib.loads(render({}))
    assert {section: set(table) for section, table in document.items()} == {
        section: {key.name for key in fields} for section, fields in sections().items()
    }
    assert from_document(document, tmp_path) == from_document({}, tmp_path)


def test_the_file_in_config_is_the_rendered_one() -> None:
    text = (ROOT / "config" / "gateway.toml").read_text(encoding="utf-8")
    assert text == render(EXAMPLE_OVERRIDES, EXAMPLE_HEADER), (
        "run: python -m gateway.cli.config_template > config/gateway.toml"
    )


def test_the_file_in_config_differs_from_the_defaults_only_where_it_says_so() -> None:
    settings = load(ROOT / "config" / "gateway.toml", {})
    plain = from_document({}, ROOT / "config")
    differing = {
        (section, key.name)
        for section, fields in sections().items()
        for key in fields
        if getattr(getattr(settings, section), key.name) != getattr(getattr(plain, section), key.name)
    }
    assert differing == set(EXAMPLE_OVERRIDES)


def test_toml_values_come_back_as_they_went() -> None:
    for value in (True, False, 0, 7, "", 'quote " and \\ backslash', "line\nend \u2028 \U0001f512", ["a", "b"]):
        assert tomllib.loads(f"x = {toml_value(value)}")["x"] == value


def test_an_empty_optional_path_is_off(tmp_path: Path) -> None:
    document = tomllib.loads(render({("charts", "folder_importer_dir"): None}))
    assert from_document(document, tmp_path).charts.folder_importer_dir is None
    assert Settings().charts.folder_importer_dir is not None
