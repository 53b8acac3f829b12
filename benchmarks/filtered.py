"""
Recall and time of a search by embedding under filters, beside the plain store and an exact scan, on 50,000 x 384.

Two sets of vectors: random clusters, and SciFact's sentences with its claims as questions. The questions stand in groups around
anchors. Each row holds, per anchor, its place in the order of distances from the anchor, and a random place; so a filter on a
place lets any share of the rows pass: at random (uncorrelated), the nearest to the anchor (correlated), or the farthest from it
(anti-correlated: at 90 % everything but the questions' own neighbourhood, at 0.1 % only what is farthest from them). Every place
is held twice, under a declared key and under an undeclared one.

The exact scan is plain SQL on one connection: the same rows by the same condition, ordered by distance without an index, its
columns those of a search. Our own exact strategy does more than that; the stricter of the two is the measure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from haystack import Document
from pgvector import Vector
from pgvector.psycopg import register_vector
from psycopg.rows import dict_row
from psycopg.sql import SQL, Composed, Identifier

from benchmarks.corpora import Vectors, clusters, embedded, scifact
from benchmarks.measuring import Finding, Options, Skipped, in_turn, p50, say
from benchmarks.stores import TABLE, benchmark_server, fill, our_store, owner, plain_store, settle
from database.document_store import SynapseDocumentStore
from database.embedded import EmbeddedServer
from database.filters import condition
from database.metadata_fields import declare_field

TOP_K = 10
SHARES = (0.001, 0.01, 0.05, 0.2, 0.5, 0.9)
CORRELATIONS = ("uncorrelated", "correlated", "anti-correlated")
TIES = 1e-6
"""Distances closer than this are the same: PostgreSQL sums them in another order than numpy."""

_EXACT = (
    "SELECT id, content, blob_data, blob_meta, blob_mime_type, meta, 1 - (embedding <=> %(embedding)b) AS score FROM {table}"
    " WHERE {condition} ORDER BY (embedding <=> %(embedding)b) + 0 LIMIT 10"
)


@dataclass(frozen=True, kw_only=True)
class Vectored:
    """
    Vectors, questions in groups around anchors, and each row's places.

    :param rows: The vectors of the rows.
    :param texts: Their contents.
    :param groups: Per anchor, its questions' vectors.
    :param places: By key, each row's place; `near_<anchor>` or `random`.
    """

    name: str
    rows: Vectors
    texts: list[str]
    groups: list[Vectors]
    places: dict[str, np.ndarray[Any, Any]]

    def documents(self) -> Iterator[Document]:
        """The rows as documents."""
        held = {key: place.tolist() for key, place in self.places.items()}
        for n, text in enumerate(self.texts):
            meta = {key: place[n] for key, place in held.items()}
            meta |= {f"declared_{key}": place[n] for key, place in held.items()}
            yield Document(id=f"row {n}", content=text, embedding=self.rows[n].tolist(), meta=meta)

    def mask(self, key: str, low: int, high: int) -> np.ndarray[Any, Any]:
        """Which rows have a place in a range."""
        place = self.places[key]
        found: np.ndarray[Any, Any] = (place >= low) & (place < high)
        return found


@dataclass(frozen=True, kw_only=True)
class Case:
    """One kind of filter: how many rows pass, how it relates to the question, whether its field is declared."""

    correlation: str
    share: float
    declared: bool

    def range_of(self, anchor: int, rows: int) -> tuple[str, int, int]:
        """The key and the range of places that pass, for an anchor's questions."""
        passing = round(rows * self.share)
        key = "random" if self.correlation == "uncorrelated" else f"near_{anchor}"
        return (key, rows - passing, rows) if self.correlation == "anti-correlated" else (key, 0, passing)

    def filters(self, anchor: int, rows: int) -> dict[str, Any]:
        """The same as a filter."""
        key, low, high = self.range_of(anchor, rows)
        field = f"meta.{'declared_' if self.declared else ''}{key}"
        if low:
            return {"field": field, "operator": ">=", "value": low}
        return {"field": field, "operator": "<", "value": high}


def run(options: Options) -> list[Finding]:
    """Measure on both sets of vectors."""
    findings = _on(clustered(options), options)
    try:
        findings += _on(sentences(options), options)
    except Skipped as exc:
        findings.append(Finding(row="recall", what="SciFact's sentences", value=None, note=f"skipped: {exc}"))
    return findings


def clustered(options: Options) -> Vectored:
    """Random clusters; the questions are drawn as the rows are, and are not among them."""
    rows = clusters(options.size(50_000, 1_000))
    texts = [f"Row {n} of {len(rows)}." for n in range(len(rows))]
    return _grouped("clusters", rows, texts, clusters(1_000, seed=2), options)


def sentences(options: Options) -> Vectored:
    """SciFact's sentences, then titles, until there are 50,000; the questions are its claims."""
    collection = scifact(options.scifact)
    if options.quick:
        raise Skipped("not with --quick, because the sentences must be embedded")
    texts = collection.sentences(50_000)
    rows = embedded(texts, name="sentences", options=options)
    claims = embedded(collection.questions, name="questions", options=options)
    return _grouped("sentences", rows, texts, claims, options)


def _grouped(name: str, rows: Vectors, texts: list[str], questions: Vectors, options: Options) -> Vectored:
    anchors, each = options.size(4, 2), options.size(10, 3)
    numbers = np.random.default_rng(3)
    chosen = questions[numbers.choice(len(questions), anchors, replace=False)]
    places = {"random": numbers.permutation(len(rows))}
    for anchor, vector in enumerate(chosen):
        places[f"near_{anchor}"] = np.argsort(np.argsort(-(rows @ vector), kind="stable"), kind="stable")
    groups = [questions[np.argsort(-(questions @ vector))[:each]] for vector in chosen]
    return Vectored(name=name, rows=rows, texts=texts, groups=groups, places=places)


def _on(data: Vectored, options: Options) -> list[Finding]:
    with benchmark_server() as server, our_store(server) as ours:
        say(f"{data.name}: writing {len(data.rows):,} rows")
        fill(server, ours, data.documents())
        for key in data.places:
            declare_field(ours.database, TABLE, f"declared_{key}", "number")
        settle(server, TABLE)
        bench = _Bench(data, server, ours)
        cases = [Case(correlation=c, share=s, declared=d) for d in (True, False) for c in CORRELATIONS for s in SHARES]
        unfiltered = bench.unfiltered_recall()
        measured = {case: bench.measure(case) for case in cases}
        bench.close()
    return [*_recall(data.name, measured), unfiltered, *_times(data.name, measured)]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one case gave: recall and rows of each store, and milliseconds of each side at the median."""

    recall: float
    worst: float
    too_few: int
    plain_recall: float | None
    plain_rows: float | None
    plain_error: str | None
    ms: dict[str, float]


class _Bench:
    """Both stores on one table, and the connection of the exact scan."""

    def __init__(self, data: Vectored, server: EmbeddedServer, ours: SynapseDocumentStore) -> None:
        self.data, self.ours = data, ours
        self.plain = plain_store(server, table=TABLE, shares_ours=True)
        self.connection = owner(server)
        self.connection.row_factory = dict_row
        self.connection.prepare_threshold = None  # a generic plan would not know how selective the filter is
        self.connection.execute("SET random_page_cost = 1.1")
        self.connection.execute("SET jit = off")
        register_vector(self.connection)
        self.questions = [(anchor, q) for anchor, group in enumerate(data.groups) for q in group]

    def close(self) -> None:
        """Close what was opened."""
        self.plain.close()
        self.connection.close()

    def unfiltered_recall(self) -> Finding:
        """What the index itself finds; no figure is wanted of it here."""
        everything = Case(correlation="uncorrelated", share=1.0, declared=False)
        found = {
            side: float(
                np.mean([self._score(n, everything, ask(q.tolist()))[0] for n, (_, q) in enumerate(self.questions)])
            )
            for side, ask in (("ours", self.ours.dense_search), ("plain store", self.plain._embedding_retrieval))
        }
        what = f"{self.data.name}: recall@10 without a filter"
        return Finding(row="recall", what=what, value=found.pop("ours"), beside=found)

    def measure(self, case: Case) -> Measured:
        """Ask every question under the case's filter, all sides in turn."""
        rows = len(self.data.rows)
        filters = [case.filters(anchor, rows) for anchor in range(len(self.data.groups))]
        scans = [_exact(filter_) for filter_ in filters]

        def ours(n: int) -> list[Document]:
            anchor, question = self.questions[n]
            return self.ours.dense_search(question.tolist(), filters=filters[anchor], top_k=TOP_K)

        def unfiltered(n: int) -> list[Document]:
            return self.ours.dense_search(self.questions[n][1].tolist(), top_k=TOP_K)

        def exact(n: int) -> list[Any]:
            anchor, question = self.questions[n]
            statement, params = scans[anchor]
            return self.connection.execute(statement, {**params, "embedding": Vector(question)}).fetchall()

        times, found = in_turn(
            {"ours": ours, "unfiltered": unfiltered, "exact scan": exact}, calls=len(self.questions), warm_up=1
        )
        scores = [self._score(n, case, documents) for n, documents in enumerate(found["ours"])]
        plain, error = self._plain(case, filters)
        measured = Measured(
            recall=float(np.mean([score for score, _ in scores])),
            worst=min(score for score, _ in scores),
            too_few=sum(not enough for _, enough in scores),
            plain_recall=float(np.mean([recall for recall, _ in plain])) if plain else None,
            plain_rows=float(np.mean([count for _, count in plain])) if plain else None,
            plain_error=error,
            ms={side: round(p50(values), 3) for side, values in times.items()},
        )
        kind = "declared" if case.declared else "undeclared"
        say(
            f"{self.data.name:9} {kind:10} {case.correlation:15} {case.share:6.1%}  recall {measured.recall:.4f}"
            f"  plain {'-' if plain is None else f'{measured.plain_recall:.3f}'}  "
            + "  ".join(f"{k} {v:.1f} ms" for k, v in measured.ms.items())
        )
        return measured

    def _plain(self, case: Case, filters: list[dict[str, Any]]) -> tuple[list[tuple[float, int]] | None, str | None]:
        scores = []
        for n, (anchor, question) in enumerate(self.questions):
            try:
                found = self.plain._embedding_retrieval(question.tolist(), filters=filters[anchor], top_k=TOP_K)
            except Exception as exc:
                return None, str(exc)
            scores.append((self._score(n, case, found)[0], len(found)))
        return scores, None

    def _score(self, n: int, case: Case, found: list[Document]) -> tuple[float, bool]:
        """Recall of an answer, and whether it has as many rows as it must."""
        anchor, question = self.questions[n]
        mask = self.data.mask(*case.range_of(anchor, len(self.data.rows)))
        distances = 1 - self.data.rows @ question
        passing = np.sort(distances[mask])
        wanted = min(TOP_K, len(passing))
        if not wanted:
            return 1.0, not found
        places = [int(document.id.split()[1]) for document in found]
        right = [place for place in set(places) if mask[place] and distances[place] <= passing[wanted - 1] + TIES]
        return len(right) / wanted, len(set(places)) == wanted == len(places)


def _exact(filters: dict[str, Any]) -> tuple[Composed, dict[str, Any]]:
    where, params = condition(filters)
    return SQL(_EXACT).format(table=Identifier(TABLE), condition=where), params


def _recall(name: str, measured: dict[Case, Measured]) -> Iterator[Finding]:
    for (declared, correlation), cases in _by_kind(measured).items():
        kind = "declared" if declared else "undeclared"
        plain = {f"{c.share:.1%}": m.plain_recall for c, m in cases.items()}
        worst = min(cases, key=lambda case: cases[case].recall)
        yield Finding(
            row="recall",
            what=f"{name}, {kind} field, {correlation}: recall@10 of the worst of {len(cases)} shares",
            value=cases[worst].recall,
            at_least=0.99,
            beside={
                "worst at": f"{worst.share:.1%}",
                "plain store there": cases[worst].plain_recall,
                "plain store's worst": min((v for v in plain.values() if v is not None), default=None),
                "cases": [_as_data(case, found) for case, found in cases.items()],
            },
        )
    yield Finding(
        row="recall",
        what=f"{name}: answers without min(10, matching) rows",
        value=sum(found.too_few for found in measured.values()),
        at_most=0,
        beside={
            "plain store's rows, fewest": min(
                (m.plain_rows for m in measured.values() if m.plain_rows is not None), default=None
            )
        },
    )


def _times(name: str, measured: dict[Case, Measured]) -> Iterator[Finding]:
    for (declared, correlation), cases in _by_kind(measured).items():
        against = "unfiltered" if declared and correlation != "anti-correlated" else "exact scan"
        ratios = {case: found.ms["ours"] / found.ms[against] for case, found in cases.items()}
        worst = max(ratios, key=lambda case: ratios[case])
        what = "without a filter" if against == "unfiltered" else "an exact scan of the same rows"
        yield Finding(
            row="filter time",
            what=f"{name}, {'declared' if declared else 'undeclared'} field, {correlation}: p50 against {what}, worst share",
            value=ratios[worst],
            unit="x",
            at_most=3 if against == "unfiltered" else 1.3,
            beside={
                "worst at": f"{worst.share:.1%}",
                "ms": cases[worst].ms["ours"],
                f"{against} ms": cases[worst].ms[against],
                "by share": " ".join(f"{case.share:.1%} {ratio:.2f}x" for case, ratio in ratios.items()),
                "against no filter": " ".join(
                    f"{case.share:.1%} {found.ms['ours'] / found.ms['unfiltered']:.2f}x"
                    for case, found in cases.items()
                ),
            },
        )


def _by_kind(measured: dict[Case, Measured]) -> dict[tuple[bool, str], dict[Case, Measured]]:
    kinds: dict[tuple[bool, str], dict[Case, Measured]] = defaultdict(dict)
    for case, found in measured.items():
        kinds[case.declared, case.correlation][case] = found
    return kinds


def _as_data(case: Case, found: Measured) -> dict[str, Any]:
    return {
        "share": case.share,
        "recall": found.recall,
        "worst_question": found.worst,
        "too_few": found.too_few,
        "plain_recall": found.plain_recall,
        "plain_rows": found.plain_rows,
        "plain_error": found.plain_error,
        "ms": found.ms,
    }
