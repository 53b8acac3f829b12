"""
Every benchmark of the store, one after the other: each measures its sides in turn, on an embedded server of its own.

    python -m benchmarks.all [--only ROW,ROW] [--quick] [--scifact FOLDER] [--json FILE] [--markdown FILE]
                             [--plots [FOLDER]] [--cache FOLDER]

Prints one table of what was measured and what is wanted; ends with 5 if a figure is missed or a benchmark raised an error
(with --quick, whose figures mean nothing, only for an error).
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import SERVER_VERSIONS, description
from benchmarks.measuring import MISSED, Finding, Options, Skipped, markdown, print_findings
from config import PROJECT


@dataclass(frozen=True)
class Row:
    """
    A benchmark: its module and function, and about how many minutes it takes on two cores.

    The one that watches the program's memory comes first; the others leave libraries and models in it.
    """

    module: str
    function: str
    minutes: float


ROWS = {
    "scale": Row("benchmarks.scale", "run", 8),
    "filters": Row("benchmarks.random_filters", "run", 3),
    "filtered": Row("benchmarks.filtered", "run", 7),
    "ranking": Row("benchmarks.ranking", "run", 4),
    "keyword": Row("benchmarks.keyword_search", "run", 3),
    "dense": Row("benchmarks.dense", "run", 1.5),
    "bulk": Row("benchmarks.writing", "run_bulk", 2),
    "served": Row("benchmarks.writing", "run_served", 2),
    "precision": Row("benchmarks.programs", "run_precision", 6),
    "indexes": Row("benchmarks.programs", "run_index_choices", 4),
}


def main(arguments: list[str] | None = None) -> int:
    """
    Run the rows that are asked for.

    :param arguments: Of the command line; `None` means the process's.
    :returns: The exit code.
    """
    parsed = _parser().parse_args(arguments)
    options = Options(quick=parsed.quick, cache=parsed.cache, scifact=parsed.scifact, plots=parsed.plots)
    logging.getLogger("haystack_integrations").setLevel(
        logging.CRITICAL
    )  # the plain store reports what is counted here
    findings: list[Finding] = []
    report: dict[str, Any] = {**description(), "seconds": {}, "findings": []}
    for name in parsed.only or ROWS:
        print(f"{name}, about {ROWS[name].minutes:g} min" if not options.quick else name, flush=True)
        began = time.perf_counter()
        findings += found(name, options)
        report["seconds"][name] = round(time.perf_counter() - began, 1)
        report["versions"] |= SERVER_VERSIONS
        report["findings"] = [finding.data() for finding in findings]
        if parsed.json:
            parsed.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print_findings(findings)
    print(", ".join(f"{name} {taken:.0f} s" for name, taken in report["seconds"].items()))
    if parsed.markdown:
        parsed.markdown.write_text(markdown(findings), encoding="utf-8")
    if options.plots:
        from benchmarks.plots import draw

        print("\n".join(str(path) for path in draw(findings, options.plots)))
    missed = [finding for finding in findings if finding.failed or (finding.met is False and not options.quick)]
    return MISSED if missed else 0


def found(name: str, options: Options) -> list[Finding]:
    """What a benchmark finds; one that cannot run, or fails, is a finding, too, so that the others still run."""
    row = ROWS[name]
    try:
        run: Callable[[Options], list[Finding]] = getattr(importlib.import_module(row.module), row.function)
        return run(options)
    except Skipped as exc:
        return [Finding(row=name, what="all", value=None, note=f"skipped: {exc}")]
    except Exception as exc:
        traceback.print_exc()
        return [Finding(row=name, what="all", value=None, note=f"failed: {type(exc).__name__}: {exc}", failed=True)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=_rows, help=f"some rows, with commas: {', '.join(ROWS)}")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that everything runs")
    parser.add_argument(
        "--scifact", type=_folder, default=os.environ.get("BENCH_SCIFACT"), help="BEIR's layout; or BENCH_SCIFACT"
    )
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--markdown", type=Path, help="file for the table, as the documentation has it")
    parser.add_argument("--plots", type=Path, nargs="?", const=PROJECT / "docs" / "images", help="folder for pictures")
    parser.add_argument("--cache", type=Path, default=PROJECT / ".synapse-bench", help="folder of embeddings")
    return parser


def _rows(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(ROWS):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: the rows are {', '.join(ROWS)}")
    return names


def _folder(text: str) -> Path | None:
    return Path(text).expanduser() if text else None


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers are stopped and their folders removed
    sys.exit(main())
