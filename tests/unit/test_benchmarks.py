"""How the benchmarks judge what they measure; none of them runs here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from haystack import Document

from benchmarks import all as benchmarks
from benchmarks.filtered import Case, Vectored, _Bench
from benchmarks.measuring import Finding, Options, Skipped, in_turn, markdown, number, print_findings
from benchmarks.scale import _growth


def found(value: float | None, **bounds: Any) -> Finding:
    return Finding(row="row", what="what", value=value, **bounds)


@pytest.mark.parametrize(
    ("finding", "met"),
    [
        (found(2.0, at_most=2), True),
        (found(2.1, at_most=2), False),
        (found(0.99, at_least=0.99), True),
        (found(0.98, at_least=0.99), False),
        (found(float("nan"), at_least=0.99), False),
        (found(1.0), None),
        (found(None, at_most=2), None),
        (found(None, failed=True), False),
    ],
)
def test_a_figure_is_held_against_its_bounds(finding: Finding, met: bool | None) -> None:
    assert finding.met is met
    assert json.loads(json.dumps(finding.data()))["met"] is met


def test_figures_are_shown_with_the_digits_that_count() -> None:
    assert [number(value) for value in (0.98765, 12.345, 1234.5, 10, "1%", True)] == [
        "0.9877",
        "12.35",
        "1234",
        "10",
        "1%",
        "True",
    ]


def test_tables_show_what_is_missed_and_notes_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    findings = [found(3.0, unit="x", at_most=2, beside={"ours ms": 1.5, "cases": [1]}, note="a [b] | c")]
    row = "| what | 3x | <= 2x | **missed** | ours ms 1.50; a [b] \\| c |"
    assert markdown(findings).splitlines()[2] == row
    print_findings(findings)
    assert "a [b] | c" in capsys.readouterr().out


def test_sides_take_turns_in_beginning() -> None:
    called: list[str] = []
    sides = {name: (lambda n, name=name: called.append(name) or n) for name in "ab"}
    times, results = in_turn(sides, calls=3, warm_up=1)
    assert called == ["a", "b", "a", "b", "b", "a", "a", "b"]
    assert results == {"a": [0, 1, 2], "b": [0, 1, 2]}
    assert {name: len(values) for name, values in times.items()} == {"a": 3, "b": 3}


def run_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run: Any) -> tuple[int, list[dict[str, Any]]]:
    from benchmarks import dense

    monkeypatch.setattr(dense, "run", run)
    path = tmp_path / "figures.json"
    code = benchmarks.main(["--only", "dense", "--json", str(path)])
    return code, json.loads(path.read_text())["findings"]


def test_a_missed_figure_ends_with_5(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert run_with(monkeypatch, tmp_path, lambda options: [found(1.0, at_most=2)])[0] == 0
    assert run_with(monkeypatch, tmp_path, lambda options: [found(3.0, at_most=2)])[0] == 5


def test_a_benchmark_that_raises_is_a_failure_and_one_that_cannot_run_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def raises(options: Options) -> list[Finding]:
        raise ValueError("out of luck")

    def skips(options: Options) -> list[Finding]:
        raise Skipped("needs SciFact")

    code, (failure,) = run_with(monkeypatch, tmp_path, raises)
    assert (code, failure["met"]) == (5, False)
    assert "out of luck" in failure["note"]
    code, (skip,) = run_with(monkeypatch, tmp_path, skips)
    assert (code, skip["met"], skip["note"]) == (0, None, "skipped: needs SciFact")


def test_an_unknown_row_names_those_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        benchmarks.main(["--only", "dense,nonsense"])
    assert "nonsense: the rows are scale, filters" in capsys.readouterr().err


@pytest.mark.parametrize("power", [1.0, 1.5])
def test_what_grows_faster_than_n_log_n_is_missed(power: float) -> None:
    measured = [{"rows": float(rows), "build_s": rows**power} for rows in (10_000, 100_000, 300_000)]
    assert _growth("build_s", "building", measured).met is (power == 1.0)


def test_recall_counts_ties_and_only_rows_that_pass() -> None:
    rows = np.eye(20, dtype=np.float32)
    rows[1] = rows[0]
    places = {"random": np.arange(20), "near_0": np.arange(20)}
    data = Vectored(name="x", rows=rows, texts=["t"] * 20, groups=[rows[:1]], places=places)
    bench = object.__new__(_Bench)
    bench.data, bench.questions = data, [(0, rows[0])]
    case = Case(correlation="uncorrelated", share=0.5, declared=False)

    def score(places: list[int]) -> tuple[float, bool]:
        return bench._score(0, case, [Document(id=f"row {n}", content="t") for n in places])

    assert score(list(range(10))) == (1.0, True)
    assert score([*range(9), 15]) == (0.9, True)  # 15 does not pass
    assert score(list(range(9))) == (0.9, False)
    one = Case(correlation="correlated", share=0.05, declared=True)
    assert bench._score(0, one, [Document(id="row 0", content="t")]) == (1.0, True)
    assert one.filters(0, 20) == {"field": "meta.declared_near_0", "operator": "<", "value": 1}
