"""How sure a mean over queries is, and whether the difference between two is real."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 10_000
EXACT_UP_TO = 13
"""Up to this many queries that differ, every one of the 2^n permutations is looked at."""

_AT_ONCE = 4_000_000  # random numbers that are drawn together, 32 MB


def bootstrap_interval(values: Sequence[float], *, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """
    The 95 % percentile interval of the mean (Efron & Tibshirani, 1993).

    :param values: One per query.
    :param resamples: How often as many queries are drawn anew, with replacement.
    :param seed: The same seed gives the same interval.
    """
    data = np.asarray(values, dtype=float)
    generator = np.random.default_rng(seed)
    rows = max(1, _AT_ONCE // len(data))
    means = np.concatenate(
        [
            data[generator.integers(0, len(data), size=(min(rows, resamples - start), len(data)))].mean(axis=1)
            for start in range(0, resamples, rows)
        ]
    )
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def permutation_test(differences: Sequence[float], *, permutations: int = RESAMPLES, seed: int = 0) -> float:
    """
    The two-sided p-value of a mean difference: Fisher's randomisation test for pairs, as Pitman describes it (1937).

    If two systems were the same, each query's difference would have either sign with equal chance. Smucker, Allan and
    Carterette (CIKM 2007) recommend it for comparing retrieval systems over the Wilcoxon and sign tests.

    :param differences: One per query.
    :param permutations: How many are drawn where there are too many to look at all of them.
    :param seed: The same seed gives the same value.
    :returns: The share of the permutations whose mean is at least as far from 0, with the observed one among them.
    """
    data = np.asarray([value for value in differences if value], dtype=float)  # 0 stays 0 with either sign
    if not len(data):
        return 1.0
    least = abs(data.sum()) - 1e-9
    if len(data) <= EXACT_UP_TO:
        numbers = np.arange(2 ** len(data))
        signs = 1 - 2 * ((numbers[:, None] >> np.arange(len(data))) & 1)
        return float((np.abs(signs @ data) >= least).mean())
    generator = np.random.default_rng(seed)
    rows = max(1, _AT_ONCE // len(data))
    extreme = 0
    for start in range(0, permutations, rows):
        signs = generator.integers(0, 2, size=(min(rows, permutations - start), len(data)), dtype=np.int8) * 2 - 1
        extreme += int((np.abs(signs @ data) >= least).sum())
    return (extreme + 1) / (permutations + 1)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """
    Two configurations on the same queries.

    :param difference: Mean of `first` minus mean of `second`.
    :param interval: Of the difference.
    :param p: Of the permutation test; after `holm`, adjusted for how many comparisons there are.
    """

    measure: str
    first: str
    second: str
    queries: int
    difference: float
    interval: tuple[float, float]
    p: float

    @property
    def is_real(self) -> bool:
        """Whether chance alone would give such a difference less than once in twenty times."""
        return self.p < 1 - CONFIDENCE

    @property
    def words(self) -> str:
        """What to make of it, in a sentence."""
        size, measure = abs(self.difference), self.measure.replace("ndcg", "nDCG")
        low, high = self.interval if self.difference > 0 else (-self.interval[1], -self.interval[0])
        chance = f"p {'<' if self.p < 0.001 else '='} {max(self.p, 0.001):.{3 if self.p < 0.1 else 2}f}"
        if self.difference == 0 and self.interval == (0, 0):
            return f"{self.first} and {self.second} give the same {measure} on every query."
        if self.is_real:
            better, worse = (self.first, self.second) if self.difference > 0 else (self.second, self.first)
            return (
                f"{better} is better than {worse} by {size:.3f} {measure} ({low:.3f} to {high:.3f}, {chance}): "
                "the difference is real."
            )
        return (
            f"{self.first} and {self.second} differ by {size:.3f} {measure} ({chance}): "
            f"that may be chance on {self.queries} quer{'y' if self.queries == 1 else 'ies'}."
        )

    def to_dict(self) -> dict[str, Any]:
        """As one JSON object."""
        return {**asdict(self), "real": self.is_real, "words": self.words}


def compared(
    first: tuple[str, dict[str, float]], second: tuple[str, dict[str, float]], *, measure: str, seed: int = 0
) -> Comparison:
    """
    Compare two configurations.

    :param first: Its name, and its value for each query.
    :param second: The same for the other one; queries that only one of them has are left out.
    :param measure: Name of what was measured.
    :raises ValueError: If they have no query in common.
    """
    common = [query for query in first[1] if query in second[1]]
    if not common:
        raise ValueError("no query in common")
    differences = [first[1][query] - second[1][query] for query in common]
    return Comparison(
        measure=measure,
        first=first[0],
        second=second[0],
        queries=len(common),
        difference=math.fsum(differences) / len(common),
        interval=bootstrap_interval(differences, seed=seed),
        p=permutation_test(differences, seed=seed),
    )


def holm(values: Sequence[float]) -> list[float]:
    """
    p-values adjusted for their number, so that one chance finding among many is not taken for real (Holm, 1979).

    :param values: As the tests gave them.
    :returns: In the same order, at most 1.
    """
    order = sorted(range(len(values)), key=lambda place: values[place])
    adjusted = [0.0] * len(values)
    for rank, place in enumerate(order):
        adjusted[place] = min(1.0, (len(values) - rank) * values[place])
    for before, after in pairwise(order):
        adjusted[after] = max(adjusted[after], adjusted[before])
    return adjusted


def limit_if_all_perfect(count: int) -> float:
    """
    How low the true mean of values of at most 1 may still be when all of `count` were 1 (Clopper & Pearson, 1934).

    A bootstrap resamples what it saw: of 20 perfect queries it would conclude that no other exist.
    """
    return float(((1 - CONFIDENCE) / 2) ** (1 / count))
