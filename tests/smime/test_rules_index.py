"""The 25 S/MIME rules of docs/references.md each have a test that bears their number, here or where it belongs."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ELSEWHERE = {
    13: "smime/test_refused_algorithms.py::test_compressed_data_is_not_opened",
    16: "unit/sta/test_path_validation.py::test_no_case_of_x509_limbo_explodes_or_raises",
    17: "unit/sta/test_fetcher.py::",
    18: "unit/sta/test_revocation.py::",
    19: "unit/ingress/",
}
"""Rules whose tests stand with the part that keeps them: path building, fetching, revocation, the SMTP door."""
WORDS = {17: "169.254.169.254", 18: "ocsp", 19: "bare"}
"""What the tests elsewhere must at least speak of."""


def _numbers() -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for path in sorted((TESTS / "smime").glob("test_*.py")):
        for number in re.findall(r"^def test_rule_(\d+)_", path.read_text(encoding="utf-8"), re.MULTILINE):
            found.setdefault(int(number), []).append(path.name)
    return found


def test_every_rule_has_its_test() -> None:
    covered = set(_numbers()) | set(ELSEWHERE)
    assert covered == set(range(1, 26)), sorted(set(range(1, 26)) - covered)


def test_the_rules_are_those_of_the_reference() -> None:
    reference = (TESTS.parent / "docs/references.md").read_text(encoding="utf-8")
    table = reference.partition("## S/MIME rules")[2].partition("\n## ")[0]
    numbers = [int(number) for number in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)]
    assert numbers == list(range(1, 26))


def test_the_tests_elsewhere_are_there() -> None:
    for rule, place in ELSEWHERE.items():
        path, _, name = place.partition("::")
        files = sorted((TESTS / path).glob("test_*.py")) if path.endswith("/") else [TESTS / path]
        text = "".join(file.read_text(encoding="utf-8") for file in files if file.is_file())
        assert text, (rule, place)
        assert f"def {name}" in text
        assert WORDS.get(rule, "").lower() in text.lower(), (rule, place)
