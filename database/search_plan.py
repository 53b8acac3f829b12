"""What a hybrid search did, from PostgreSQL's own account of it: EXPLAIN (ANALYZE)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from psycopg.sql import SQL

from database.document_queries import Query

Node = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Leg:
    """
    One leg of a search.

    :param way: How it went, in a sentence.
    :param looked_at: Rows of its table that were read.
    :param proposed: Documents that it found.
    :param ms: Milliseconds on the server.
    """

    way: str
    looked_at: int
    proposed: int
    ms: float


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """
    How a search went.

    :param dense: By embedding.
    :param keyword: By words.
    :param candidates: Documents that were scored by both.
    :param planning_ms: Milliseconds that the planner took.
    :param execution_ms: Milliseconds that the statement took, both legs and the scoring.
    :param exact_cost: What the planner thinks that comparing every document that passes the filter would cost, in its own
        unit; `None` without a filter, or where it was not asked.
    :param plan: The plan, a line per step, indented: what, on what, rows, milliseconds.
    """

    dense: Leg
    keyword: Leg
    candidates: int
    planning_ms: float
    execution_ms: float
    exact_cost: float | None
    plan: tuple[str, ...]

    def after(self, short: SearchPlan, *, wanted: int) -> SearchPlan:
        """This search, which was run because another one, along the index, found too little."""
        dense = Leg(
            way=f"{short.dense.way}, {wanted} wanted; so {self.dense.way}",
            looked_at=short.dense.looked_at + self.dense.looked_at,
            proposed=self.dense.proposed,
            ms=round(short.dense.ms + self.dense.ms, 2),
        )
        return replace(
            self,
            dense=dense,
            planning_ms=round(short.planning_ms + self.planning_ms, 2),
            execution_ms=round(short.execution_ms + self.execution_ms, 2),
        )

    def to_dict(self) -> dict[str, Any]:
        """As one JSON object."""
        return asdict(self)


def explained(query: Query) -> Query:
    """The same search, which returns PostgreSQL's account instead of documents."""
    return Query(
        statement=SQL("EXPLAIN (ANALYZE, FORMAT JSON, BUFFERS off) ") + query.statement,
        params=query.params,
        settings=query.settings,
        also=query.also,
    )


def search_plan(rows: list[Node], *, index: str = "HNSW index") -> SearchPlan:
    """
    Sum up PostgreSQL's account of a hybrid search.

    :param rows: What `explained` returned.
    :param index: What the search by embedding goes along, for people.
    """
    account = rows[0]["QUERY PLAN"][0]
    root = account["Plan"]
    along, compared = _rows(root, "along_the_index"), _rows(root, "one_by_one")
    nearest, worded = _named(root, "CTE nearest"), _named(root, "CTE worded")
    return SearchPlan(
        dense=Leg(
            way=f"{index}: {_count(nearest)} of its {along} nearest pass"
            if along
            else f"every document that passes compared: {compared} read",
            looked_at=along + compared,
            proposed=_count(nearest),
            ms=_ms(nearest),
        ),
        keyword=Leg(
            way="BM25, the rarest words first",
            looked_at=_rows(root, "with_the_rarest") + _rows(root, "with_others"),
            proposed=_count(worded),
            ms=_ms(worded),
        ),
        candidates=_count(_named(root, "CTE scored")),
        planning_ms=round(account["Planning Time"], 2),
        execution_ms=round(account["Execution Time"], 2),
        exact_cost=None,
        plan=tuple(_lines(root)),
    )


def _nodes(node: Node) -> Iterator[Node]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


def _named(root: Node, name: str) -> Node | None:
    return next((node for node in _nodes(root) if node.get("Subplan Name") == name), None)


def _of(root: Node, alias: str) -> Iterator[Node]:
    """The scans of a table under that alias, which PostgreSQL numbers where it stands several times."""
    return (node for node in _nodes(root) if str(node.get("Alias", "")).rstrip("_0123456789") == alias)


def _rows(root: Node, alias: str) -> int:
    return sum(
        round((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"])
        for node in _of(root, alias)
    )


def _count(node: Node | None) -> int:
    return round(node["Actual Rows"] * node["Actual Loops"]) if node else 0


def _ms(node: Node | None) -> float:
    return round(node["Actual Total Time"] * node["Actual Loops"], 2) if node else 0.0


def _lines(node: Node, depth: int = 0) -> Iterator[str]:
    name = node.get("Subplan Name", "")
    on = node.get("Index Name") or node.get("Alias") or node.get("CTE Name") or ""
    parts = [node["Node Type"], f"on {on}" if on else "", f"({name})" if name else ""]
    said = f"{_count(node):,} rows, {_ms(node):.2f} ms" if node["Actual Loops"] else "not needed"
    yield "  " * depth + " ".join(part for part in parts if part) + ": " + said
    for child in node.get("Plans", ()):
        yield from _lines(child, depth + 1)
