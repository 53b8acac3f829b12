"""Pictures of what the benchmarks found: recall and time under filters, and growth with size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.measuring import Finding

LABELS = {
    "write_s": "writing, s",
    "build_s": "index build, s",
    "query_ms": "search, p50, ms",
    "server_mib": "server, peak MiB",
    "client_mib": "program, peak MiB",
}


def draw(findings: list[Finding], folder: Path) -> list[Path]:
    """
    Draw what the findings have data for.

    :param findings: Of any rows.
    :param folder: Where the pictures go; made where it is missing.
    :returns: The files.
    """
    import matplotlib

    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    recall = [found for found in findings if found.row == "recall" and "cases" in found.beside]
    for name in dict.fromkeys(found.what.split(",")[0] for found in recall):
        files.append(_recall(name, [f for f in recall if f.what.startswith(name)], folder / f"bench-recall-{name}.png"))
    sizes = next((found.beside["by size"] for found in findings if "by size" in found.beside), None)
    if sizes:
        files.append(_scale(sizes, folder / "bench-scale.png"))
    return files


def _recall(name: str, findings: list[Finding], path: Path) -> Path:
    """Above, recall by the share of rows that pass; below, milliseconds. A column per correlation."""
    from matplotlib import pyplot

    correlations = list(dict.fromkeys(_parts(found)[2] for found in findings))
    figure, axes = pyplot.subplots(
        2, len(correlations), figsize=(4 * len(correlations), 6.5), sharex=True, squeeze=False
    )
    for found in findings:
        _, kind, correlation = _parts(found)
        recall, time = axes[:, correlations.index(correlation)]
        cases: list[dict[str, Any]] = found.beside["cases"]
        shares = [100 * case["share"] for case in cases]
        style = "-o" if kind == "declared" else "--s"
        recall.plot(shares, [case["recall"] for case in cases], style, label=f"this store, {kind}")
        time.plot(shares, [case["ms"]["ours"] for case in cases], style, label=f"this store, {kind}")
        time.plot(shares, [case["ms"]["exact scan"] for case in cases], ":", label=f"exact scan, {kind}")
        if kind == "undeclared":
            recall.plot(
                shares, [case["plain_recall"] for case in cases], "-x", color="gray", label="plain pgvector-haystack"
            )
        recall.set_title(correlation)
    for column in range(len(correlations)):
        axes[0][column].set(xscale="log", ylim=(-0.05, 1.05), ylabel="recall@10")
        axes[1][column].set(xscale="log", yscale="log", ylabel="p50, ms", xlabel="rows that pass, %")
    for row in (0, 1):
        axes[row][0].legend(fontsize=8)
    return _saved(figure, f"Filtered search: {name}", path)


def _parts(found: Finding) -> tuple[str, str, str]:
    name, kind, correlation = found.what.split(":")[0].split(", ")
    return name, kind.removesuffix(" field"), correlation


def _scale(sizes: list[dict[str, float]], path: Path) -> Path:
    """One panel per step, with n log n through the first point."""
    from matplotlib import pyplot
    from numpy import array, log

    rows = array([found["rows"] for found in sizes])
    figure, axes = pyplot.subplots(1, len(LABELS), figsize=(3.2 * len(LABELS), 3.4))
    for panel, (key, label) in zip(axes, LABELS.items(), strict=True):
        values = array([found[key] for found in sizes])
        panel.loglog(rows, values, "-o", label="measured")
        panel.loglog(rows, values[0] * rows * log(rows) / (rows[0] * log(rows[0])), ":", label="n log n")
        panel.set(title=label, xlabel="rows")
    axes[0].legend(fontsize=8)
    return _saved(figure, "Growth with the number of rows, 384 dimensions", path)


def _saved(figure: Any, title: str, path: Path) -> Path:
    from matplotlib import pyplot

    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path
