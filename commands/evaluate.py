"""`evaluate DIR`: how good the search is, on questions whose answers are known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from commands.database import owner_database
from commands.output import JsonFlag, errors_reported, note, print_json, progress, say
from database.errors import InvalidInputError

if TYPE_CHECKING:
    from evaluation.evaluation import Result
    from evaluation.statistics import Comparison


def evaluate(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="[DIR]", help="A collection in BEIR's layout: corpus, queries, qrels.", show_default=False
        ),
    ] = None,
    qrels: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which judgements: train, test …; test by default.")
    ] = None,
    split: Annotated[
        bool, typer.Option("--split", help="Split texts into chunks; the best stands for its document.")
    ] = False,
    strategy: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this one; repeatable. dense, keyword, hybrid …")
    ] = None,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="A B", help="Is the difference real? Strategies, or files with what --json printed."),
    ] = None,
    tune: Annotated[
        bool, typer.Option("--tune", help="Choose the ranking's settings on the training queries.")
    ] = False,
    keep: Annotated[
        str | None, typer.Option(metavar="NAME", help="Keep the embedded documents under this name.")
    ] = None,
    reuse: Annotated[str | None, typer.Option(metavar="NAME", help="Use those that were kept under this name.")] = None,
    drop: Annotated[str | None, typer.Option(metavar="NAME", help="Drop those; without DIR, and nothing else.")] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw nDCG@10 of each strategy, with its interval.")
    ] = None,
    json_: JsonFlag = False,
) -> None:
    """Measure the search on a collection with judged questions, in a schema of its own."""
    with errors_reported(json_):
        _check(folder, compare=compare, keep=keep, reuse=reuse, drop=drop, tune=tune, given=(qrels, strategy, plot))
        if drop is not None:
            _drop(drop, json_=json_)
        elif folder is None:
            assert compare is not None
            from evaluation.saved import compared_pair

            _print({"comparisons": compared_pair(*compare, run={})}, json_=json_)
        else:
            result = _evaluated(
                folder,
                qrels=qrels or ("train" if tune else None),
                split=split,
                only=strategy,
                compare=compare,
                tune=tune,
                keep=keep,
                reuse=reuse,
                plot=plot,
                quiet=json_,
            )
            _print(result, json_=json_)


def _check(
    folder: Path | None,
    *,
    compare: tuple[str, str] | None,
    keep: str | None,
    reuse: str | None,
    drop: str | None,
    tune: bool,
    given: tuple[Any, ...],
) -> None:
    if keep and reuse:
        raise InvalidInputError("--keep makes a new evaluation and --reuse takes one that is there; give one of them.")
    if drop is not None and (folder or compare or keep or reuse or tune or any(given)):
        raise InvalidInputError("--drop NAME drops what was kept and does nothing else.")
    if folder is None and drop is None and (compare is None or keep or reuse or tune or any(given)):
        raise InvalidInputError("DIR is needed: a folder with corpus.jsonl, queries.jsonl and qrels/.")
    if tune and (compare or given[0] == "test" or given[2]):
        raise InvalidInputError(
            "--tune chooses settings on training queries; --compare, --plot and test do not go with it."
        )


def _drop(name: str, *, json_: bool) -> None:
    from config import Settings
    from database.evaluation_schema import drop_evaluation

    drop_evaluation(owner_database(Settings.from_env()), name)
    if json_:
        print_json({"dropped": name})
        return
    say(f"Dropped what was kept as {name}.")


def _evaluated(
    folder: Path,
    *,
    qrels: str | None,
    split: bool,
    only: list[str] | None,
    compare: tuple[str, str] | None,
    tune: bool,
    keep: str | None,
    reuse: str | None,
    plot: Path | None,
    quiet: bool,
) -> dict[str, Any]:
    """The command's one object."""
    from evaluation.collection import read_collection
    from evaluation.plots import check_plot

    check_plot(plot)
    collection = read_collection(folder, qrels=qrels)
    for sentence in collection.notes:
        note(sentence)

    from config import Settings
    from database.connection import open_database
    from database.evaluation_schema import evaluation_schema
    from database.models import chosen_model
    from evaluation.workbench import Workbench

    settings = Settings.from_env()
    model = chosen_model(open_database(settings), settings.embedding_model)
    owner = owner_database(settings)
    holds = {"documents": collection.digest, "model": model.model, "split": split, "language": model.language}
    with evaluation_schema(owner, holds=holds, keep=keep, reuse=reuse) as schema:
        for name in schema.dropped:
            note(f"Dropped {name}, which a run that was killed left behind.")
        bench = Workbench(
            owner,
            schema.name,
            settings=settings,
            model=model,
            collection=collection,
            split=split,
            progress=partial(_bar, quiet=quiet),
        )
        bench.fill()
        head = {
            "collection": collection.name,
            "documents": len(collection.texts),
            "chunks": bench.chunks,
            "queries": len(collection.queries),
            "model": model.model,
            "notes": collection.notes,
        }
        if tune:
            return {**head, "tuning": bench.tuned().to_dict()}
        results = bench.results(only=only)
    return _as_object(head, results, compare=compare, plot=plot)


@contextmanager
def _bar(what: str, total: int | None, *, quiet: bool) -> Iterator[Callable[[int, str], None]]:
    """A bar with the time left."""
    with progress(quiet=quiet) as bar:
        task = bar.add_task(what, total=total, detail="")

        def show(done: int, detail: str) -> None:
            bar.update(task, completed=done, detail=detail)

        yield show


def _as_object(
    head: dict[str, Any], results: Mapping[str, Result], *, compare: tuple[str, str] | None, plot: Path | None
) -> dict[str, Any]:
    from evaluation.plots import plot_strategies
    from evaluation.saved import compared_pair, compared_with_hybrid, queries_of

    result = {**head, "strategies": {name: found.to_dict() for name, found in results.items()}}
    if plot is not None:
        plot_strategies(result, plot)
    run = queries_of(result)
    return {**result, "comparisons": compared_pair(*compare, run=run) if compare else compared_with_hybrid(run)}


def _print(result: dict[str, Any], *, json_: bool) -> None:
    comparisons: list[Comparison] = result.get("comparisons", [])
    if json_:
        print_json({**result, "comparisons": [comparison.to_dict() for comparison in comparisons]})
        return
    if "collection" in result:
        chunks = f" in {result['chunks']:,} chunks" if result["chunks"] != result["documents"] else ""
        say(
            f"{result['collection']}: {result['documents']:,} documents{chunks}, {result['queries']:,} questions, "
            f"{result['model']}"
        )
    if "strategies" in result:
        _print_table(result["strategies"])
    if "tuning" in result:
        _print_tuning(result["tuning"])
    for comparison in comparisons:
        say(comparison.words)


def _print_table(strategies: Mapping[str, Any]) -> None:
    from evaluation.measures import NAMES

    say()
    say(f"{'':<10}" + "".join(f"{name:>25}" for name in ("nDCG@10", "recall@100", "MRR@10")) + f"{'p50':>9}{'p95':>9}")
    for name, found in strategies.items():
        cells = [f"{found[measure]:.3f} ({_ends(found['intervals'][measure])})" for measure in NAMES]
        times = f"{found['p50_ms']:>6.1f} ms{found['p95_ms']:>6.1f} ms"
        say(f"{name:<10}" + "".join(f"{cell:>25}" for cell in cells) + times)
    say()


def _ends(interval: list[float]) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}"


def _print_tuning(tuning: Mapping[str, Any]) -> None:
    from evaluation.workbench import settings_text

    say(f"Best of {tuning['tried']} settings on {tuning['chosen_on']} questions: {settings_text(tuning['best'])}")
    if tuning["best"] == tuning["start"]:
        say("These are the present settings.")
        return
    say(f"Before: {settings_text(tuning['start'])}")
    say(f"On {tuning['gain']['queries']} other questions: {tuning['gain']['words']}")
