"""What the repository cites is in the repository: ids and rules in ``docs/references.md``, documents as files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "references.md"
TEXT_SUFFIXES = frozenset({"", ".java", ".md", ".py", ".toml", ".txt"})
NOT_OURS = frozenset({"build", "dist", "demo", "practice", "clinic", "__pycache__", "node_modules"})
FAMILIES = "AS|DN|CD|TB|EP|CX|HL7|ON"
ID = re.compile(rf"\b(?P<family>(?:{FAMILIES})-|[FS](?=\d\d\b))(?P<number>\d{{1,3}})\b")
RANGE = re.compile(rf"\b((?:{FAMILIES})-|[FS](?=\d\d\b))(\d{{1,3}})(?:\.\.|-| to )(?:\1)?(\d{{1,3}})\b")
DEFINED = re.compile(rf"^\| ((?:{FAMILIES})-\d+|[FS]\d\d) \| \S", re.MULTILINE)
DOCUMENT = re.compile(r"[\w./-]*\w\.md\b")
RULES = {
    "S/MIME rules": re.compile(r"\bS/MIME rules? (\d+(?:(?:, | and | to )\d+)*)"),
    "Findings about libraries": re.compile(r"\b[Ff]indings? (\d+(?:(?:, | and | to )\d+)*)"),
    "Matching policy": re.compile(r"\b[Mm]atching policy (\d+(?:(?:, | and | to )\d+)*)"),
}


def texts() -> Iterator[tuple[Path, str]]:
    """Every text file of the repository, without what a run or a build makes in it."""
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        hidden = any(part.startswith(".") for part in parts[:-1]) or any(part in NOT_OURS for part in parts)
        if path.is_file() and not hidden and path.suffix in TEXT_SUFFIXES and path != Path(__file__):
            yield path, path.read_text(encoding="utf-8", errors="replace")


def cited(text: str) -> set[str]:
    """The ids in a text; a range means all that lie in it."""
    found = {match["family"] + match["number"] for match in ID.finditer(text)}
    for family, first, last in RANGE.findall(text):
        width = len(first) if len(family) == 1 else 0
        found |= {f"{family}{number:0{width}d}" for number in range(int(first), int(last) + 1)}
    return found


def section(title: str) -> str:
    """The text under a heading of the page."""
    page = PAGE.read_text(encoding="utf-8")
    return page.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("AS-5..7, EP-8", {"AS-5", "AS-6", "AS-7", "EP-8"}),
        ("AS-5..AS-6", {"AS-5", "AS-6"}),
        ("S46-S48 and F18 to F20", {"S46", "S47", "S48", "F18", "F19", "F20"}),
        ("EP-5 to EP-6", {"EP-5", "EP-6"}),
        ("S105, FF01, SHA-256, F8, PS01", set()),
    ],
)
def test_citations_are_recognised(text: str, ids: set[str]) -> None:
    assert cited(text) == ids


def test_every_cited_id_is_defined_once() -> None:
    defined = DEFINED.findall(PAGE.read_text(encoding="utf-8"))
    assert len(defined) == len(set(defined))
    missing = {str(path.relative_to(ROOT)): ids for path, text in texts() if (ids := cited(text) - set(defined))}
    assert missing == {}
    assert len(defined) > 100, "the page was found and read"


@pytest.mark.parametrize("title", RULES)
def test_every_cited_rule_is_defined(title: str) -> None:
    defined = set(re.findall(r"^\| (\d+) \| \S", section(title), re.MULTILINE))
    missing = {
        str(path.relative_to(ROOT)): numbers
        for path, text in texts()
        for found in RULES[title].findall(text)
        if (numbers := set(re.findall(r"\d+", found)) - defined)
    }
    assert defined
    assert missing == {}


def test_every_named_document_is_in_the_repository() -> None:
    missing = {
        f"{path.relative_to(ROOT)}: {name}"
        for path, text in texts()
        for name in DOCUMENT.findall(text)
        if not (path.parent / name.lstrip("/")).is_file() and not (ROOT / name.lstrip("/")).is_file()
    }
    assert missing == set()


def test_the_page_is_linked() -> None:
    for name in ("README.md", "CONTRIBUTING.md"):
        assert "(docs/references.md" in (ROOT / name).read_text(encoding="utf-8"), name
