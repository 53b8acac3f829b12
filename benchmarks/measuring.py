"""
What the benchmarks share: findings with the figure that is wanted, timing of several sides in turn, a server of their own.

Sides that are compared run in turn within one run, so that a machine that slows down does not count against one of them.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

MISSED = 5
"""Exit code of a benchmark below its threshold, as of any check of the program."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """
    How much is measured, and where the data lie.

    :param quick: Tiny sizes, to see that everything runs; the figures mean nothing then.
    :param cache: Folder of embeddings that are made once.
    :param scifact: SciFact in BEIR's layout; `None` skips what needs it.
    :param plots: Folder for pictures; `None` draws none.
    """

    quick: bool = False
    cache: Path = Path(".synapse-bench")
    scifact: Path | None = None
    plots: Path | None = None

    def size(self, full: int, quick: int) -> int:
        """One of two sizes."""
        return quick if self.quick else full


class Skipped(Exception):
    """A benchmark cannot run here; the message says what it needs."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """
    One figure, and what is wanted of it.

    :param row: The benchmark that found it.
    :param what: What was measured.
    :param value: The figure; `None` where it could not be measured, and `note` says why.
    :param unit: Its unit; empty for a share or a count, `x` for a ratio.
    :param at_least: The lower bound that is wanted.
    :param at_most: The upper bound that is wanted.
    :param beside: Other figures of the same run that explain this one.
    :param note: One line for the reader.
    :param failed: Whether measuring it raised an error.
    """

    row: str
    what: str
    value: float | None
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None
    beside: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    failed: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the bounds hold; `None` where there are none, or there is no figure."""
        if self.failed:
            return False
        if self.value is None or (self.at_least is None and self.at_most is None):
            return None
        return (self.at_least is None or self.value >= self.at_least) and (
            self.at_most is None or self.value <= self.at_most
        )

    @property
    def wanted(self) -> str:
        """The bounds as text."""
        bounds = ((">=", self.at_least), ("<=", self.at_most))
        return " and ".join(f"{sign} {bound:g}{self.unit}" for sign, bound in bounds if bound is not None)

    @property
    def shown(self) -> str:
        """The figure as text."""
        return "-" if self.value is None else f"{number(self.value)}{self.unit}"

    def data(self) -> dict[str, Any]:
        """The finding for JSON."""
        return {**asdict(self), "beside": dict(self.beside), "met": self.met}


def number(value: Any) -> str:
    """A figure with three or four digits that count."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or value == int(value):
        return f"{int(value)}"
    if 0.9999 < abs(value) < 1:
        return f"{value:.6f}"
    return f"{value:.4f}" if abs(value) < 1 else f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"


def print_findings(findings: list[Finding]) -> None:
    """All findings as one table."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("row", "what", "measured", "wanted", "", "beside, of the same run", show_lines=True)
    words = {True: "[green]met[/]", False: "[red]missed[/]", None: ""}
    for found in findings:
        beside = ", ".join(f"{key} {number(value)}" for key, value in found.beside.items() if not is_nested(value))
        told = "\n".join(filter(None, (beside, found.note)))
        table.add_row(found.row, escape(found.what), found.shown, found.wanted, words[found.met], escape(told))
    Console(width=160, markup=True).print(table)


def markdown(findings: list[Finding]) -> str:
    """All findings as a table for the documentation; what is missed stands in bold."""
    words = {True: "met", False: "**missed**", None: ""}
    lines = ["| what | measured | wanted | | beside, of the same run |", "|---|---|---|---|---|"]
    for found in findings:
        beside = ", ".join(f"{key} {number(value)}" for key, value in found.beside.items() if not is_nested(value))
        told = "; ".join(filter(None, (beside, found.note))).replace("|", "\\|")
        lines.append(f"| {found.what} | {found.shown} | {found.wanted} | {words[found.met]} | {told} |")
    return "\n".join(lines) + "\n"


def is_nested(value: Any) -> bool:
    """Whether a value is for JSON only."""
    return isinstance(value, dict | list | tuple)


def say(text: str) -> None:
    """A line of progress."""
    print(f"  {text}", flush=True)


def seconds(work: Callable[..., object], *arguments: Any, **options: Any) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    work(*arguments, **options)
    return time.perf_counter() - began


def in_turn(
    sides: Mapping[str, Callable[[int], Any]], *, calls: int, warm_up: int = 3
) -> tuple[dict[str, list[float]], dict[str, list[Any]]]:
    """
    Call the sides in turn, each time beginning with another, so that none always finds the pages that another has read.

    :param sides: What is called, with the number of the call.
    :param calls: How often each is called.
    :param warm_up: Calls before that do not count.
    :returns: Milliseconds per call, and what the calls returned, by side.
    """
    names = list(sides)
    for name in names:
        for n in range(min(warm_up, calls)):
            sides[name](n)
    times: dict[str, list[float]] = {name: [] for name in names}
    results: dict[str, list[Any]] = {name: [] for name in names}
    for n in range(calls):
        first = n % len(names)
        for name in names[first:] + names[:first]:
            began = time.perf_counter()
            result = sides[name](n)
            times[name].append((time.perf_counter() - began) * 1000)
            results[name].append(result)
    return times, results


def p50(times: list[float]) -> float:
    """The median."""
    return statistics.median(times)


def p95(times: list[float]) -> float:
    """The 95th percentile."""
    return sorted(times)[min(len(times) - 1, int(0.95 * len(times)))]


@contextmanager
def temporary_home() -> Iterator[Path]:
    """A home folder that every user may enter, as a server that root starts must, and that is removed."""
    with tempfile.TemporaryDirectory(prefix="synapse-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name) / "home"
