"""The pictures of `evaluate` and `recall`, as PNG files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from database.errors import InvalidInputError

_DPI = 150


def plot_strategies(result: Mapping[str, Any], path: Path) -> None:
    """
    nDCG@10 of each strategy, with its interval.

    :param result: The JSON object of `evaluate`.
    :param path: The file to write.
    :raises InvalidInputError: If its name does not end in .png.
    """
    strategies = result["strategies"]
    names = list(strategies)
    means = [strategies[name]["ndcg@10"] for name in names]
    ends = [strategies[name]["intervals"]["ndcg@10"] for name in names]
    errors = [
        [max(0.0, mean - low) for mean, (low, _) in zip(means, ends, strict=True)],
        [max(0.0, high - mean) for mean, (_, high) in zip(means, ends, strict=True)],
    ]
    figure, axes = _figure(path)
    axes.barh(names, means, xerr=errors, color="#4878a8", ecolor="#333333", capsize=4, height=0.6)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    for place, mean in enumerate(means):
        axes.text(0.015, place, f"{mean:.3f}", va="center", color="white" if mean > 0.1 else "black")
    axes.set_xlabel("nDCG@10, with 95 % intervals")
    axes.set_title(f"{result['collection']}: {result['documents']:,} documents, {result['queries']:,} questions")
    figure.savefig(path, dpi=_DPI)


def plot_recall(groups: Sequence[Mapping[str, Any]], path: Path, *, title: str, top_k: int) -> None:
    """
    Recall against latency, a line for each filter and a point for each `ef_search`.

    :param groups: Of the certificate: `filter` and `settings`, each with `ef_search`, `recall`, `interval` and `p50_ms`.
    :param path: The file to write.
    :param title: What was searched.
    :param top_k: How many documents were asked for.
    :raises InvalidInputError: If its name does not end in .png.
    """
    figure, axes = _figure(path)
    for group in groups:
        settings = group["settings"]
        recalls = [setting["recall"] for setting in settings]
        errors = [
            [max(0.0, setting["recall"] - setting["interval"][0]) for setting in settings],
            [max(0.0, setting["interval"][1] - setting["recall"]) for setting in settings],
        ]
        times = [setting["p50_ms"] for setting in settings]
        axes.errorbar(
            times, recalls, yerr=errors, marker="o", capsize=3, elinewidth=0.7, label=group["filter"] or "no filter"
        )
    for setting in groups[0]["settings"] if groups else []:
        axes.annotate(
            str(setting["ef_search"]),
            (setting["p50_ms"], setting["recall"]),
            textcoords="offset points",
            xytext=(4, -12),
            fontsize=8,
        )
    axes.set_xlabel("latency, p50, ms")
    axes.set_ylabel(f"recall@{top_k}, with 95 % intervals")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=_DPI)


def check_plot(path: Path | None) -> None:
    """
    Refuse a file that could not be written, before an hour is spent on what it is to show.

    :raises InvalidInputError: If its name does not end in .png, or its folder does not exist.
    """
    if path is not None and (path.suffix.lower() != ".png" or not path.absolute().parent.is_dir()):
        raise InvalidInputError(f"--plot takes the name of a .png file in a folder that exists, but was given {path}.")


def _figure(path: Path) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    check_plot(path)
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")  # not pyplot, which keeps state and looks for a screen
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()
