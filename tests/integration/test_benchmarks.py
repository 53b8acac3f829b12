"""The benchmarks that need no model run through at tiny sizes, on the tests' server."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import psycopg
import pytest

from benchmarks import all as benchmarks
from benchmarks import dense, filtered, random_filters
from benchmarks.stores import TABLE
from database.embedded import EmbeddedServer
from database.metadata_fields import forget_table


@pytest.mark.slow
def test_they_run(
    server: EmbeddedServer | None,
    owner_conninfo: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if server is None:
        pytest.skip("the benchmarks measure on embedded servers")
    for module in (dense, filtered, random_filters):
        monkeypatch.setattr(module, "benchmark_server", lambda: nullcontext(server))
    monkeypatch.delenv("BENCH_SCIFACT", raising=False)
    figures, plots = tmp_path / "figures.json", tmp_path / "plots"
    rows = "dense,filters,filtered"
    code = benchmarks.main(["--quick", "--only", rows, "--json", str(figures), "--plots", str(plots)])
    with psycopg.connect(owner_conninfo) as connection:
        forget_table(connection, TABLE)
    report = json.loads(figures.read_text())
    assert code == 0, capsys.readouterr()
    assert {finding["row"] for finding in report["findings"]} == {
        "dense",
        "threads",
        "filters",
        "recall",
        "filter time",
    }
    right = {f["what"]: f["met"] for f in report["findings"] if f["row"] in ("filters", "recall")}
    assert right.pop("clusters: recall@10 without a filter") is None  # nothing is wanted of it
    assert right.pop("SciFact's sentences") is None  # skipped
    assert len(right) == 9
    assert right == dict.fromkeys(right, True)
    assert [path.name for path in plots.iterdir()] == ["bench-recall-clusters.png"]
