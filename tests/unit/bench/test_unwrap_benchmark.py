"""The benchmark runs and its sums are right; how fast anything is, is not tested."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bench import peers, unwrap
from tests.bench.floor import Floor
from tests.bench.making import make_world
from tests.bench.measure import Peak, Times
from tests.bench.report import render, verdicts
from tests.bench.rows import start_python, timed
from tests.bench.world import BenchError, World

PYTHON_ROWS = ("judge", "unwrap", "floor")
QUICK = ["--sizes", "10k", "--rounds", "1", "--rows", ",".join(PYTHON_ROWS)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"), ["10k"], lambda _: None)


def times_of(**rows: list[float]) -> Times:
    times = Times()
    for row, found in rows.items():
        for seconds in found:
            times.add("100k", row.replace("_", "-"), seconds)
    return times


def test_it_measures_the_product_and_the_floor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert unwrap.main([*QUICK, "--json", str(tmp_path / "out.json")]) == 0
    document = json.loads((tmp_path / "out.json").read_text())
    measured = document["cpu_ms"]["10k"]
    assert set(measured) == set(PYTHON_ROWS)
    assert all(0 < row["least"] <= row["median"] and len(row["rounds"]) == 1 for row in measured.values())
    assert measured["floor"]["times_floor"] == 1
    floors = [t for t in document["targets"] if t["target"] == "times the floor"]
    assert [t["value"] for t in floors] == [measured["judge"]["times_floor"], measured["unwrap"]["times_floor"]]
    shown = capsys.readouterr()
    assert "10 KB" in shown.out
    assert "not measured" in shown.out  # openssl-cms was not asked for
    assert "round 1 of 1" in shown.err


@pytest.mark.parametrize(("repeats", "opened"), [(1, 1), (3, 4)])
def test_one_message_comes_before_several_that_are_timed(repeats: int, opened: int) -> None:
    """A single one is not doubled: the peak of memory is that of opening it once."""
    seen: list[bytes] = []
    assert timed(seen.append, b"message", repeats) >= 0
    assert seen == [b"message"] * opened


def test_a_row_that_refuses_the_message_stops_the_run(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def nobody_is_trusted(folder: Path, sizes: list[str], say: Callable[[str], None]) -> World:
        world = make_world(folder, sizes, say)
        for anchor in world.anchors.iterdir():
            anchor.unlink()
        return world

    monkeypatch.setattr(unwrap, "make_world", nobody_is_trusted)
    assert unwrap.main(QUICK) == 1
    shown = capfd.readouterr()
    assert "the agent refused the message: untrusted" in shown.err
    assert shown.out == ""


def test_the_floor_checks_that_it_opened_the_message(world: World) -> None:
    raw = world.message("10k").read_bytes()
    floor = Floor(world, "10k")
    floor(raw)
    start, end = floor._plan.signed
    floor._plan = dataclasses.replace(floor._plan, signed=(start, end - 1))
    with pytest.raises(BenchError, match="did not find the signed part"):
        floor(raw)


def test_a_fresh_process_tells_its_time_and_its_peak(world: World) -> None:
    program = start_python("floor", world, "10k")
    try:
        before = program.peak()
        assert program.run("10k", 2) > 0
        assert 5 < before <= program.peak() < 1000
    finally:
        program.close()


def test_a_program_that_ends_is_reported(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    program = start_python("floor", World(tmp_path), "10k")
    try:
        with pytest.raises(BenchError, match="floor ended"):
            program.run("10k", 1)
    finally:
        program.close()
    assert "10k.json" in capfd.readouterr().err


def test_the_ratio_is_the_median_of_the_rounds() -> None:
    # The third round was disturbed for everybody: the ratio of the medians would be 3.
    times = times_of(judge=[2.0, 3.0, 30.0], floor=[1.0, 1.0, 20.0])
    assert times.ratio("100k", "judge", "floor") == 2
    assert times.ratio("100k", "judge", "openssl-cms") is None


def test_each_target_is_met_or_missed_or_not_measured() -> None:
    times = times_of(judge=[1.6], unwrap=[1.5], floor=[1.0], openssl_cms=[3.0])
    found = {(v.target, v.row): v.text for v in verdicts(times, {}, ["100k"])}
    assert found == {
        ("times the floor", "judge"): "1.60 missed by 0.1",
        ("times the floor", "unwrap"): "1.50 met",
        ("times openssl-cms", "judge"): "0.53 missed by 0.033",
        ("times openssl-cms", "unwrap"): "0.50 met",
    }
    (memory,) = [v for v in verdicts(times, {"judge": Peak(90, 170)}, ["25m"]) if v.target == "MB at the peak"]
    assert memory.text == "170 missed by 10"
    (unknown,) = [v for v in verdicts(Times(), {}, ["25m"]) if v.target == "MB at the peak"]
    assert (unknown.text, unknown.met) == ("not measured", None)


def test_below_100_kb_as_fast_as_openssl_is_enough() -> None:
    limits = {v.size: v.limit for v in verdicts(Times(), {}, ["10k", "100k"]) if v.target == "times openssl-cms"}
    assert limits == {"10k": 1.0, "100k": 0.5}


def test_a_peer_that_is_left_out_is_named() -> None:
    times = times_of(judge=[1.0], floor=[1.0])
    text = render(times, {}, ["100k"], ["judge", "floor"], {"openssl-cms": "gcc is not installed"})
    assert "not measured: openssl-cms: gcc is not installed" in text


def test_without_a_compiler_the_peers_are_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert peers.missing("openssl-cms") == "gcc is not installed"
    assert peers.missing("bouncy-castle") == "javac is not installed"


@pytest.mark.parametrize("wrong", [["--sizes", "11k"], ["--rows", "nobody"], ["--rounds", "0"]])
def test_misuse_is_refused(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        unwrap.main(wrong)
    assert stopped.value.code == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", peers.PEERS)
def test_a_peer_opens_the_message(name: str, world: World, tmp_path: Path) -> None:
    reason = peers.missing(name)
    if reason is not None:
        pytest.skip(reason)
    program = peers.start_peer(name, peers.compile_peer(name, tmp_path), world, ["10k"])
    try:
        assert program.ask("about")
        assert program.run("10k", 1) > 0
        assert program.peak() > 5
    finally:
        program.close()
