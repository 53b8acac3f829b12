"""
The store's searches, as statements with their parameters: by embedding, by words, by both.

How a filtered search by embedding goes is decided by what the planner says of the filter. Where comparing every document
that passes is cheap, it is done: that is exact. Elsewhere the filter is looked at along the HNSW index's order, and when
too few pass there, a second statement compares every document that passes. The planner is asked in the round trip of a
filter's first search, and its word is kept for a minute.

Which index there is to go along, `database.index_variants` knows.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from database.document_queries import MAX_EF_SEARCH, Aside, DocumentsTable, Query, columns
from database.document_rows import vector
from database.errors import InvalidInputError
from database.filters import condition
from database.index_variants import ALL_LISTS, OPERATORS, KnownIndexes, SearchIndex
from database.ranking import Ranking
from database.sql import statements

SCORES = {"cosine_similarity": SQL("1 - distance"), "inner_product": SQL("-distance"), "l2_distance": SQL("distance")}

CHEAP = 5_000.0
"""Comparing every document that passes is cheap up to this cost, in the planner's unit: some 3,500 documents by an index."""

KNOWN_FOR = 60.0
"""Seconds that the planner's word on a filter is kept."""

KNOWN_FILTERS = 1_000

REACH = 200
"""How many documents a filter is looked at along the HNSW index's order, at least; more where more are wanted."""

REACH_PRECISION = 2
"""`ef_search` of that, as a multiple: the list's far end is less exact than its beginning."""

MAX_TERMS = 64
"""How many different terms of a question are looked for: the rarest."""

FIRST_MATCHES = 2_000
"""How many documents with the rarest terms are weighed before it is decided which other terms matter."""

MAX_QUESTION = 200_000
"""Characters of a question that are searched for words; PostgreSQL gives up at 1 MB of them."""

_SQL = statements(Path(__file__).with_suffix(".sql"))


class PlannerCosts:
    """What the planner said lately about filters. Safe to share between threads."""

    def __init__(self) -> None:
        self._costs: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = Lock()

    def get(self, filters: str) -> float | None:
        """The cost of comparing every document that passes; `None` if it is not known."""
        with self._lock:
            cost, until = self._costs.get(filters, (0.0, 0.0))
        return cost if until > time.monotonic() else None

    def remember(self, filters: str, plan: list[dict[str, Any]]) -> None:
        """
        Keep the planner's word.

        :param filters: The filter.
        :param plan: What EXPLAIN (FORMAT JSON) said.
        """
        cost = float(plan[0]["Plan"]["Total Cost"])
        with self._lock:
            self._costs[filters] = (cost, time.monotonic() + KNOWN_FOR)
            self._costs.move_to_end(filters)
            if len(self._costs) > KNOWN_FILTERS:
                self._costs.popitem(last=False)


@dataclass(frozen=True, kw_only=True)
class Searches:
    """
    How a documents table is searched.

    :param table: The table.
    :param exact: Whether every embedding is compared, without the HNSW index.
    :param ef_search: Candidate list of an HNSW search; raised to the number of documents wanted.
    :param ranking: Parameters of keyword and hybrid searches.
    :param indexes: Which indexes the table has.
    """

    table: DocumentsTable
    exact: bool
    ef_search: int
    ranking: Ranking
    indexes: KnownIndexes
    costs: PlannerCosts = field(default_factory=PlannerCosts)

    def nearest(
        self,
        embedding: Sequence[float],
        *,
        filters: dict[str, Any] | None,
        top_k: int,
        vector_function: str | None,
        with_embedding: bool,
    ) -> Query:
        """The documents nearest to an embedding."""
        function = vector_function or self.table.vector_function
        if function not in OPERATORS:
            raise InvalidInputError(f"vector_function must be one of {', '.join(OPERATORS)}, but is {function!r}.")
        if self._must_ask:
            return self.asking(
                lambda: self.nearest(
                    embedding,
                    filters=filters,
                    top_k=top_k,
                    vector_function=vector_function,
                    with_embedding=with_embedding,
                )
            )
        leg = self._dense_leg(
            embedding,
            filters=filters,
            wanted=_checked(top_k),
            top_k=top_k,
            function=function,
            selected=columns(embedding=with_embedding),
        )
        return leg.within("nearest_documents", table=self.table, score=SCORES[function])

    def with_words(
        self, question: str, *, filters: dict[str, Any] | None, top_k: int, with_embedding: bool = False
    ) -> Query:
        """The documents that have words of a question, best first by BM25."""
        worded, params = self._keyword_leg(question, filters=filters, wanted=max(2 * _checked(top_k), self._candidates))
        statement = self.table.formatted(
            _SQL["keyword_documents"],
            worded=worded,
            columns=columns(embedding=with_embedding),
            keyword_score=SQL(_SQL["keyword_score"]),
        )
        return Query(statement=statement, params={**params, "top_k": top_k}, settings=self._settings(0))

    def hybrid(self, question: str, embedding: Sequence[float], *, filters: dict[str, Any] | None, top_k: int) -> Query:
        """The documents that are best by embedding and by words together."""
        function = self.table.vector_function
        if function == "l2_distance":
            raise InvalidInputError(
                "A hybrid search needs scores of which large is good, but the store compares by l2_distance.",
                hint="Use cosine_similarity or inner_product.",
            )
        if self._must_ask:
            return self.asking(lambda: self.hybrid(question, embedding, filters=filters, top_k=top_k))
        wanted = max(_checked(top_k), self._candidates)
        leg = self._dense_leg(
            embedding, filters=filters, wanted=wanted, top_k=top_k, function=function, selected=Identifier("id")
        )
        worded, params = self._keyword_leg(question, filters=filters, wanted=wanted)
        leg.params.update(params, keyword_weight=self.ranking.keyword_weight)
        return leg.within(
            "hybrid_documents",
            table=self.table,
            worded=worded,
            columns=columns(embedding=False),
            operator=OPERATORS[function],
            vector_type=SQL(self.table.vector_type),
            score=SCORES[function],
            keyword_score=SQL(_SQL["keyword_score"]),
        )

    def exact_cost(self, filters: dict[str, Any] | None) -> float | None:
        """What the planner said lately of comparing every document that passes; `None` if it was not asked."""
        return self.costs.get(_key(*condition(filters))) if filters else None

    def way(self, filters: dict[str, Any] | None) -> str:
        """What a search by embedding goes along, for people."""
        index = self.indexes.best(filters, function=self.table.vector_function)
        return index.described if index else "no index"

    def asking(self, then: Callable[[], Query] | None = None) -> Query:
        """
        Which indexes the table has, in a round trip of its own: before a first search, and before one after a long pause.

        :param then: Makes the search.
        """
        question = Query(statement=self.indexes.question)
        return replace(question, learn=self.indexes.remember, enough=lambda _: then is None, instead=then)

    @property
    def _must_ask(self) -> bool:
        return not self.exact and not self.indexes.are_known

    @property
    def _candidates(self) -> int:
        return self.ranking.candidates

    def _dense_leg(
        self,
        embedding: Sequence[float],
        *,
        filters: dict[str, Any] | None,
        wanted: int,
        top_k: int,
        function: str,
        selected: Composable,
    ) -> _DenseLeg:
        """
        The part that finds the documents nearest to an embedding.

        :param wanted: How many documents it proposes.
        :param top_k: How many it must find in the index, where so many pass.
        """
        where, params = condition(filters)
        key = _key(where, params) if filters else ""
        cost = self.costs.get(key) if filters else None
        index = self.indexes.best(filters, function=function) or SearchIndex(name="", function=function)
        passing = filters is not None and index.rest(filters) is not None
        reach = max(wanted, REACH, min(4 * wanted, MAX_EF_SEARCH // REACH_PRECISION)) if passing else wanted
        at_once = self.exact or (cost is not None and cost <= CHEAP)
        operator, vector_type = OPERATORS[function], SQL(self.table.vector_type)
        parts: dict[str, Composable] = {
            "condition": where,
            "near": selected,
            "operator": operator,
            "vector_type": vector_type,
            "along": index.distance(
                operator=operator, dimension=self.table.dimension, vector_type=self.table.vector_type
            ),
            "within": index.within(),
            "again": SQL("ORDER BY distance" if index.half else ""),
        }

        def part(name: str) -> Composed:
            return self.table.formatted(_SQL[name], **parts)

        also: list[Aside] = []
        if filters and not self.exact and cost is None:
            also.append((part("cost_of_exactness"), lambda rows: self.costs.remember(key, rows[0]["QUERY PLAN"])))
        if not self.exact and self.indexes.are_due:
            also.append((self.indexes.question, self.indexes.remember))
        params |= {
            "embedding": self._query_vector(embedding),
            "near": wanted,
            "top_k": top_k,
            "reach": _with_room(reach) if index.half else reach,
        }
        return _DenseLeg(
            statement=part("near_exactly" if at_once else "near_by_index"),
            exactly=None if at_once else lambda: part("near_exactly"),
            params=params,
            settings=self._settings(REACH_PRECISION * reach if passing else reach, index=index),
            also=also,
        )

    def _keyword_leg(
        self, question: str, *, filters: dict[str, Any] | None, wanted: int
    ) -> tuple[Composed, dict[str, Any]]:
        """The part that finds documents by their words, and its parameters."""
        if not isinstance(question, str) or not question:
            raise InvalidInputError("query must be a text that is not empty.")
        where, params = condition(filters)
        passing = self.table.formatted(_SQL["passing"], condition=where) if filters else Composed([])
        params |= {
            "question": question[:MAX_QUESTION].replace("\x00", " ").encode(errors="replace").decode(),
            "max_terms": MAX_TERMS,
            "worded": wanted,
            "k1": self.ranking.k1,
            "b": self.ranking.b,
        }
        return self.table.formatted(_SQL["worded"], passing=passing, first_matches=Literal(FIRST_MATCHES)), params

    def _query_vector(self, embedding: Sequence[float]) -> Any:
        values = vector(embedding, vector_type=self.table.vector_type, where="query_embedding")
        if values.dimensions() != self.table.dimension:
            raise InvalidInputError(
                f"Table {self.table.name} holds {self.table.vector_type}({self.table.dimension}),"
                f" but query_embedding has {values.dimensions()}.",
                hint="Embed questions with the model that embedded the documents.",
            )
        return values

    def _settings(self, reach: int, *, index: SearchIndex | None = None) -> dict[str, str]:
        """
        What holds for one search. Beyond the index's own limit its scan goes on, slightly out of order; statements sort again.

        An IVFFlat index that nobody knows of yet, as it is just being put in another one's place, is priced as if all its
        lists were searched: with pgvector's own setting it would be taken for the cheapest, and search one. Documents lie on solid state disks or in memory: the planner's default price of a random page would keep it from
        the index. Compiling a statement that runs for a millisecond costs more than it gains.
        """
        return {
            "hnsw.ef_search": str(min(max(self.ef_search, reach), MAX_EF_SEARCH)),
            "hnsw.iterative_scan": "relaxed_order" if reach > MAX_EF_SEARCH else "off",
            "ivfflat.probes": str(index.probes(self.ef_search) if index and index.method == "ivfflat" else ALL_LISTS),
            "ivfflat.iterative_scan": "relaxed_order",
            "random_page_cost": "1.1",
            "jit": "off",
        }


@dataclass(frozen=True, kw_only=True)
class _DenseLeg:
    """
    The part of a search that finds the documents nearest to an embedding.

    :param exactly: Makes the same without the index, for where it finds too few; `None` if `statement` is exact.
    :param also: What is asked in the same round trip, as `Query` has it.
    """

    statement: Composed
    exactly: Callable[[], Composed] | None
    params: dict[str, Any]
    settings: dict[str, str]
    also: Sequence[Aside]

    def within(self, name: str, *, table: DocumentsTable, **parts: Composable) -> Query:
        """The search of that name around this leg."""
        top_k: int = self.params["top_k"]

        def around(leg: Composed) -> Query:
            return Query(
                statement=table.formatted(_SQL[name], nearest=leg, **parts), params=self.params, settings=self.settings
            )

        def enough(rows: list[dict[str, Any]]) -> bool:
            return bool(rows) and rows[0].get("near", len(rows)) >= top_k

        exactly = self.exactly
        return replace(
            around(self.statement),
            also=self.also,
            enough=enough,
            instead=(lambda: around(exactly())) if exactly else None,
        )


def _with_room(reach: int) -> int:
    """How many are taken along an index in half precision, so that the nearest are among them when they are ordered again."""
    return reach + reach // 10 + 10


def _key(where: Composed, params: dict[str, Any]) -> str:
    return repr((where, params))


def _checked(top_k: int) -> int:
    if not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1:
        raise InvalidInputError(f"top_k must be a whole number of at least 1, but is {top_k!r}.")
    return top_k
