"""
The kinds of index that a search by embedding can go along, as the catalog tells.

A documents table is made with an HNSW index on its embeddings. `database reindex` makes others: HNSW on embeddings in half
precision, IVFFlat, and partial ones, which hold the documents that pass a filter. A search must name what an index is on, or
PostgreSQL does not use it; which there are is asked in the round trip of a search, twice a minute at most.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from database.filters import condition
from database.sql import statements

Filter = dict[str, Any]

OPERATORS = {"cosine_similarity": SQL("<=>"), "inner_product": SQL("<#>"), "l2_distance": SQL("<->")}
OPERATOR_CLASSES = {"cosine_similarity": "cosine_ops", "inner_product": "ip_ops", "l2_distance": "l2_ops"}

RENEWED_AFTER = 30.0
"""Seconds after which a search asks, in its own round trip, which indexes there are."""

KNOWN_FOR = 60.0
"""Seconds after which that is not relied on any more, and asked before a search: an index that was replaced stays as long."""

NEW, OLD = "_synapse_new", "_synapse_old"
"""What the names of indexes end in that a rebuild has not put in their place yet, or not removed yet."""

DEFAULT_LISTS = 100
"""pgvector's, of an IVFFlat index that names none."""

EF_OF_THE_ROOT = 200
"""The `ef_search` at which the square root of an IVFFlat index's lists is searched, which pgvector advises to begin with."""

ALL_LISTS = 32_768

_COMMENT = "synapse index "
_SQL = statements(Path(__file__).with_suffix(".sql"))


@dataclass(frozen=True, kw_only=True)
class SearchIndex:
    """
    An index that a search by embedding can go along.

    :param name: Its name.
    :param method: `hnsw` or `ivfflat`.
    :param function: The vector function that it serves.
    :param half: Whether it is on the embeddings cast to half precision.
    :param lists: Lists of an IVFFlat index.
    :param predicate: The SQL condition of a partial one.
    :param filters: The filter that the condition was made from.
    """

    name: str
    method: str = "hnsw"
    function: str = "cosine_similarity"
    half: bool = False
    lists: int = DEFAULT_LISTS
    predicate: str | None = None
    filters: Filter | None = None

    @property
    def described(self) -> str:
        """What it is, for people."""
        kind = "IVFFlat index" if self.method == "ivfflat" else "HNSW index"
        return f"{'partial ' if self.predicate else ''}{kind}{' in half precision' if self.half else ''}"

    def distance(self, *, operator: Composable, dimension: int, vector_type: str) -> Composed:
        """The expression to order by, so that PostgreSQL sees that the index gives this order."""
        query = SQL("%(embedding)b::{}").format(SQL(vector_type))
        if not self.half:
            return SQL("embedding {} {}").format(operator, query)
        cast = SQL(f"::halfvec({dimension})")
        return SQL("(embedding{}) {} ({}){}").format(cast, operator, query, cast)

    def within(self) -> Composed:
        """The condition that a statement must state for PostgreSQL to use a partial index, as WHERE; empty for others."""
        if self.predicate is None:
            return Composed([])
        return Composed([SQL("WHERE "), SQL(self.predicate.replace("%", "%%"))])  # type: ignore[arg-type]

    def rest(self, filters: Filter | None) -> Filter | None:
        """What of a filter the index does not hold already, as a filter; `None` if that is nothing."""
        if self.filters is None or filters is None:
            return filters
        held = set(map(meaning, conjuncts(self.filters)))
        left = [part for part in conjuncts(filters) if meaning(part) not in held]
        return {"operator": "AND", "conditions": left} if left else None

    def serves(self, filters: Filter | None, *, function: str) -> bool:
        """Whether every document that passes a filter is in the index, which orders by that vector function."""
        if self.function != function:
            return False
        if self.predicate is None:
            return True
        if self.filters is None or not filters:
            return False
        return set(map(meaning, conjuncts(self.filters))) <= set(map(meaning, conjuncts(filters)))

    def probes(self, ef_search: int) -> int:
        """How many of an IVFFlat index's lists are searched: their square root, and more as `ef_search` is larger."""
        return min(max(math.ceil(math.sqrt(self.lists) * ef_search / EF_OF_THE_ROOT), 1), self.lists)


class KnownIndexes:
    """
    Which indexes a table has, as it was lately. Safe to share between threads.

    :param table: The table, with its schema.
    :param vector_type: Of its embeddings.
    """

    def __init__(self, table: Identifier, *, vector_type: str) -> None:
        self._table, self._vector_type = table, vector_type
        self._found: tuple[SearchIndex, ...] = ()
        self._asked: float | None = None
        self._lock = Lock()

    @property
    def question(self) -> Composed:
        """The statement that asks for them."""
        return SQL(_SQL["vector_indexes"]).format(table_name=Literal(self._table.as_string()))

    @property
    def are_known(self) -> bool:
        """Whether a search may rely on what is known."""
        return self._age() < KNOWN_FOR

    @property
    def are_due(self) -> bool:
        """Whether the next search asks again in its round trip."""
        return self._age() >= RENEWED_AFTER

    def remember(self, rows: Sequence[dict[str, Any]]) -> None:
        """Keep what the question returned."""
        found = search_indexes(rows, vector_type=self._vector_type)
        with self._lock:
            self._found, self._asked = found, time.monotonic()

    def best(self, filters: Filter | None, *, function: str) -> SearchIndex | None:
        """The index that a search goes along: a partial one where the filter asks for no more; `None` where none serves it."""
        with self._lock:
            found = self._found
        serving = [one for one in found if one.serves(filters, function=function)]
        return min(serving, key=_preference, default=None)

    def _age(self) -> float:
        with self._lock:
            return math.inf if self._asked is None else time.monotonic() - self._asked


def search_indexes(rows: Sequence[dict[str, Any]], *, vector_type: str) -> tuple[SearchIndex, ...]:
    """
    The indexes that searches can name, from the catalog's rows; others, such as those on bits, are left out.

    :param rows: Of `vector_indexes`.
    :param vector_type: Of the table's embeddings.
    """
    functions = {ending: function for function, ending in OPERATOR_CLASSES.items()}
    found = []
    for row in rows:
        kind, _, ending = row["operators"].partition("_")
        column = row["indexed"].strip("()")
        half = kind == "halfvec" and vector_type == "vector" and column.startswith("embedding)::halfvec(")
        if ending in functions and (half or (column == "embedding" and kind == vector_type)):
            found.append(
                SearchIndex(
                    name=row["name"],
                    method=row["method"],
                    function=functions[ending],
                    half=half,
                    lists=row["lists"] or DEFAULT_LISTS,
                    predicate=row["predicate"],
                    filters=filters_of(row["comment"]),
                )
            )
    return tuple(found)


def comment_for(filters: Filter) -> str:
    """The comment that tells which filter a partial index was made for."""
    return _COMMENT + json.dumps({"filters": filters}, sort_keys=True, default=str)


def filters_of(comment: str | None) -> Filter | None:
    """The filter that a comment tells of; `None` where it tells of none."""
    if not comment or not comment.startswith(_COMMENT):
        return None
    try:
        found = json.loads(comment.removeprefix(_COMMENT)).get("filters")
    except (ValueError, AttributeError):
        return None
    return found if isinstance(found, dict) else None


def conjuncts(filters: Filter) -> list[Filter]:
    """The conditions that must all hold for a filter to let a document pass."""
    if filters.get("operator") == "AND" and isinstance(filters.get("conditions"), list | tuple):
        return [part for one in filters["conditions"] for part in conjuncts(one)]
    return [filters]


def meaning(filters: Filter) -> str:
    """The same for filters that become the same condition."""
    return repr(condition(filters))


def _preference(index: SearchIndex) -> tuple[bool, bool, int, str]:
    """Those that are being replaced come last, then partial ones first: the longest condition leaves the fewest documents."""
    return (index.name.endswith((NEW, OLD)), index.predicate is None, -len(index.predicate or ""), index.name)
