"""What a hybrid search did, from PostgreSQL's own account of it: EXPLAIN (ANALYZE)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
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
        learn=query.learn,
    )


def search_plan(account: list[Node], query: Query, *, exact_cost: float | None) -> SearchPlan:
    """
    Sum up PostgreSQL's account of a hybrid search.

    :param account: What EXPLAIN (ANALYZE, FORMAT JSON) returned.
    :param query: The search.
    :param exact_cost: What the planner said of the filter.
    """
    root = account[0]["Plan"]
    along, compared = _rows(root, "along_the_index"), _rows(root, "one_by_one")
    by_index, exactly = _named(root, "CTE near"), _named(root, "CTE nearest")
    scored = _named(root, "CTE scored") or root
    return SearchPlan(
        dense=Leg(
            way=_way(along, compared, passed=_count(by_index), wanted=int(query.params["top_k"])),
            looked_at=along + compared,
            proposed=_count(by_index) if by_index and not compared else min(compared, int(query.params["near"])),
            ms=round(sum(_ms(node) for node in (by_index, exactly) if node) + _reading(root, "one_by_one", exactly), 2),
        ),
        keyword=Leg(
            way="BM25, the rarest words first",
            looked_at=_rows(root, "with_the_rarest") + _rows(root, "with_others"),
            proposed=_count(_named(root, "CTE worded")),
            ms=round(_ms(_named(root, "CTE worded")), 2),
        ),
        candidates=_count(scored),
        planning_ms=round(account[0]["Planning Time"], 2),
        execution_ms=round(account[0]["Execution Time"], 2),
        exact_cost=exact_cost,
        plan=tuple(_lines(root)),
    )


def _way(along: int, compared: int, *, passed: int, wanted: int) -> str:
    if not compared:
        return f"HNSW index: {passed} of its {along} nearest pass"
    if not along:
        return f"every document that passes compared: {compared}"
    return f"HNSW index: only {passed} of its {along} nearest pass, {wanted} wanted; so every document that passes compared"


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
    return float(node["Actual Total Time"] * node["Actual Loops"]) if node else 0.0


def _reading(root: Node, alias: str, counted: Node | None) -> float:
    """The time of scans that no named part counts already."""
    return 0.0 if counted else sum(map(_ms, _of(root, alias)))


def _lines(node: Node, depth: int = 0) -> Iterator[str]:
    name = node.get("Subplan Name", "")
    on = node.get("Index Name") or node.get("Alias") or node.get("CTE Name") or ""
    parts = [node["Node Type"], f"on {on}" if on else "", f"({name})" if name else ""]
    said = f"{_count(node):,} rows, {_ms(node):.2f} ms" if node["Actual Loops"] else "not needed"
    yield "  " * depth + " ".join(part for part in parts if part) + ": " + said
    for child in node.get("Plans", ()):
        yield from _lines(child, depth + 1)
