"""Labelled data: no wrong link and the right patient among the first five, on registries made from seeds too."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from gateway.core.errors import InputError
from gateway.matching.evaluate import Evaluation, Policy, evaluate, percentile
from gateway.matching.index import PatientIndex
from gateway.matching.labelled import QUERY_COLUMNS, REGISTRY_COLUMNS, read_queries, read_registry
from tests.support.people import World

TOP_FIVE = 0.99
HEADER = ",".join(REGISTRY_COLUMNS)
ROW = "p1,M1,Ann,Lee,,1956-08-03,female,617-234-5678,12 Main St,02108,Boston,"
QUESTIONS = ",".join(QUERY_COLUMNS)
QUESTION = "q1,exact,p1,Ann,Lee,1956-08-03,female,617-234-5678,12 Main St,02108,Boston"


def seconds() -> Iterator[float]:
    return (at / 1000 for at in count())


def run(registry: str, queries: str, policy: Policy = Policy.AUTO) -> Evaluation:
    times = seconds()
    index = PatientIndex(read_registry(io.StringIO(registry, newline=""), "registry.csv"))
    asked = read_queries(io.StringIO(queries, newline=""), "queries.csv")
    return evaluate(index, asked, policy, lambda: next(times))


def holds(result: Evaluation) -> None:
    """The bars that a policy must pass."""
    assert result.wrong == ()
    for one in result.classes:
        assert one.right_in_top5 >= TOP_FIVE * one.registered, one


def made(seed: int, size: int, each: int) -> Evaluation:
    world = World(seed, size)
    registry, queries = io.StringIO(newline=""), io.StringIO(newline="")
    rows = csv.DictWriter(registry, REGISTRY_COLUMNS)
    rows.writeheader()
    rows.writerows(own.row() for own in world.people)
    asked = csv.DictWriter(queries, QUERY_COLUMNS)
    asked.writeheader()
    asked.writerows(question.row(at) for at, question in enumerate(world.questions(each)))
    return run(registry.getvalue(), queries.getvalue())


def by_class(result: Evaluation) -> dict[str, tuple[int, int]]:
    return {one.mutation: (one.count, one.automatic_right) for one in result.classes}


def test_a_made_practice_has_no_wrong_link_and_most_of_the_right_ones() -> None:
    result = made(seed=5, size=300, each=7)
    holds(result)
    links = by_class(result)
    for mutation in ("exact", "case_space_punct", "accents_removed", "phone_and_street_written_otherwise"):
        asked, linked = links[mutation]
        assert linked >= 0.85 * asked, mutation
    for mutation in ("name_dob_only", "initial", "nickname", "names_swapped", "moved", "given_typo"):
        assert links[mutation][1] == 0, mutation


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("seed", "size"), [(1, 2_000), (2, 2_000), (3, 10_000)])
def test_larger_practices_hold_the_same_bars(seed: int, size: int) -> None:
    holds(made(seed, size, each=80))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_published_benchmark(shared_data: Path) -> None:
    folder = shared_data / "clinical" / "synthea"
    if not (folder / "match_queries.csv").exists():
        pytest.skip("the benchmark is not here")
    result = run(
        (folder / "match_registry.csv").read_text(encoding="utf-8"),
        (folder / "match_queries.csv").read_text(encoding="utf-8"),
    )
    holds(result)
    assert by_class(result)["exact"] == (100, 90)


def test_counts_and_times() -> None:
    stranger = "q2,stranger,,Ann,Lee,1956-08-03,female,617-234-5678,,,"
    result = run(f"{HEADER}\n{ROW}\n", f"{QUESTIONS}\n{QUESTION}\n{stranger}\n")
    exact, other = result.classes
    assert (exact.count, exact.registered, exact.right_first, exact.right_in_top5) == (1, 1, 1, 1)
    assert (exact.automatic_right, exact.automatic_wrong) == (1, 0)
    # Exactly a patient of the registry, and yet labelled as nobody: that is what a wrong link looks like.
    assert (other.registered, other.automatic_right, other.automatic_wrong) == (0, 0, 1)
    assert [(one.query_id, one.linked_to) for one in result.wrong] == [("q2", "p1")]
    assert result.milliseconds == {"p50": 1.0, "p95": 1.0, "p99": 1.0}
    assert run(f"{HEADER}\n{ROW}\n", f"{QUESTIONS}\n{QUESTION}\n", Policy.SUGGEST).classes[0].automatic_right == 0


def test_byte_order_mark_line_ends_order_of_columns_and_others() -> None:
    crlf = "\r\n".join(["\ufeff" + HEADER.upper() + ",note", ROW + ",x", ""])
    assert run(crlf, f"{QUESTIONS}\r\n{QUESTION}\r\n\r\n").registry == 1
    turned = ",".join(reversed(REGISTRY_COLUMNS))
    assert run(f"{turned}\n{','.join(reversed(ROW.split(',')))}\n", f"{QUESTIONS}\n{QUESTION}\n").wrong == ()


@pytest.mark.parametrize(
    ("registry", "words"),
    [
        ("", "registry.csv is empty"),
        ("\n\n", "registry.csv is empty"),
        (f"{HEADER}\n", "holds no patient"),
        ("id,mrn,given\np1,1,Ann\n", "line 1: the columns are missing: family, maiden, dob"),
        (f"{HEADER.replace(',zip', '')}\n{ROW}\n", "line 1: the column is missing: zip"),
        (f"{HEADER},dob\n{ROW},\n", "more than one column is named dob"),
        (f"{HEADER}\n{ROW},x\n", "line 2: 13 fields, the header has 12"),
        (f"{HEADER}\n{ROW}\n{ROW}\n", "line 3: id is that of line 2 again"),
        (f"{HEADER}\n,M1{ROW[5:]}\n", "line 2: id is empty"),
        (f"{HEADER}\n{ROW.replace('1956-08-03', 'soon')}\n", "line 2: dob is not a date"),
        (f'{HEADER}\n"p1{ROW}\n', "line 2: cannot be read as CSV"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_line(registry: str, words: str) -> None:
    with pytest.raises(InputError) as refused:
        run(registry, f"{QUESTIONS}\n{QUESTION}\n")
    assert words in str(refused.value)
    assert "Ann" not in str(refused.value)
    assert "soon" not in str(refused.value)


def test_percentiles() -> None:
    assert [percentile([4, 1, 3, 2], percent) for percent in (50, 95, 99)] == [2, 4, 4]
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)
