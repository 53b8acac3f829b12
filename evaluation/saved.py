"""Results that `evaluate --json` printed, to compare with later."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from database.errors import InvalidInputError
from evaluation.statistics import Comparison, compared, holm

Queries = dict[str, dict[str, float]]
"""By query, then by measure."""

MEASURE = "ndcg@10"


def queries_of(result: Mapping[str, Any]) -> dict[str, Queries]:
    """By strategy, then by query, from one JSON object of `evaluate`."""
    return {name: strategy["queries"] for name, strategy in result["strategies"].items()}


def compared_pair(first: str, second: str, *, run: Mapping[str, Queries]) -> list[Comparison]:
    """
    Compare two configurations: strategies of this run, or of saved ones.

    :param first: A strategy of this run; or a file, or a file and a strategy as `FILE:STRATEGY`.
    :param second: The same. Of two files without strategies, all are compared that both have; one file without a strategy
        is compared by the strategy that the other side names.
    :param run: This run's strategies.
    :raises InvalidInputError: If one is neither, or if they have no strategy or no query in common.
    """
    one, other = _configurations(first, run), _configurations(second, run)
    names = [name for name in one if name in other]
    if len(one) == len(other) == 1:
        pairs = [(next(iter(one)), next(iter(other)))]
    elif len(one) == 1 or len(other) == 1:
        name = next(iter(one if len(one) == 1 else other))
        pairs = [(name, name)] if name in names else []
    else:
        pairs = [(name, name) for name in names]
    if not pairs:
        raise InvalidInputError(
            f"Two configurations with a strategy in common were expected, but {first} has {', '.join(one)} and {second} "
            f"has {', '.join(other)}."
        )
    return [_compared(_titled(first, a, run), one[a], _titled(second, b, run), other[b]) for a, b in pairs]


def compared_with_hybrid(run: Mapping[str, Queries]) -> list[Comparison]:
    """Each other strategy with the hybrid one; the p-values are adjusted for how many there are."""
    if "hybrid" not in run:
        return []
    found = [_compared("hybrid", run["hybrid"], name, run[name]) for name in run if name != "hybrid"]
    adjusted = holm([comparison.p for comparison in found])
    return [replace(comparison, p=p) for comparison, p in zip(found, adjusted, strict=True)]


def read_result(path: Path) -> dict[str, Queries]:
    """
    Read what `evaluate --json` printed.

    :raises InvalidInputError: If the file holds something else.
    """
    try:
        return queries_of(json.loads(path.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        raise InvalidInputError(
            f"The output of `evaluate --json` was expected in {path}, but it holds something else."
        ) from None


def _configurations(given: str, run: Mapping[str, Queries]) -> dict[str, Queries]:
    if given in run:
        return {given: run[given]}
    path, _, strategy = (given, "", "") if Path(given).is_file() else given.rpartition(":")
    if not path or not Path(path).is_file():
        known = f"one of {', '.join(run)} or " if run else ""
        raise InvalidInputError(
            f"--compare takes {known}a file that `evaluate --json` printed, but was given {given!r}."
        )
    found = read_result(Path(path))
    if not strategy:
        return found
    if strategy not in found:
        raise InvalidInputError(f"{path} was expected to have the strategy {strategy}, but has {', '.join(found)}.")
    return {strategy: found[strategy]}


def _titled(given: str, strategy: str, run: Mapping[str, Queries]) -> str:
    return given if given in run or given.endswith(f":{strategy}") else f"{given}:{strategy}"


def _compared(first: str, one: Queries, second: str, other: Queries) -> Comparison:
    try:
        return compared(
            (first, {query: values[MEASURE] for query, values in one.items()}),
            (second, {query: values[MEASURE] for query, values in other.items()}),
            measure=MEASURE,
        )
    except (ValueError, KeyError, TypeError):
        raise InvalidInputError(
            f"Results on the same queries were expected, but {first} and {second} have none in common."
        ) from None
