"""What an index is to be, without a database: the statement that makes it, its sizes, and which filters it serves."""

from __future__ import annotations

from typing import Any

import pytest
from psycopg.sql import Identifier

from commands.database_indexes import parse_size
from database.errors import InvalidInputError
from database.index_advice import index_bytes
from database.index_definition import Wanted, advised_lists
from database.index_variants import SearchIndex, comment_for, filters_of

PDF = {"field": "meta.type", "operator": "==", "value": "pdf"}
NEW = {"field": "year", "operator": ">=", "value": 2020}


def joined(operator: str, *conditions: dict[str, Any]) -> dict[str, Any]:
    return {"operator": operator, "conditions": list(conditions)}


def test_a_build_has_more_candidates_than_the_index_keeps() -> None:
    wanted = Wanted(half=True, m=8).over(None, vector_type="vector", dimension=3, rows=10)
    made = wanted.creation("new", Identifier("t"), dimension=3, predicate="id <> '%'").as_string()
    assert made == (
        'CREATE INDEX CONCURRENTLY "new" ON "t" USING hnsw ((embedding::halfvec(3)) halfvec_cosine_ops)'
        " WITH (m = 8, ef_construction='96') WHERE id <> '%'"
    )
    assert wanted.own_setting == "ef_construction = 48"


def test_what_is_not_named_stays_as_it_is() -> None:
    old = Wanted(half=True, m=20, ef_construction=100).over(None, vector_type="vector", dimension=3, rows=10)
    assert Wanted().over(old, vector_type="vector", dimension=3, rows=10) == old
    assert Wanted(m=60).over(old, vector_type="vector", dimension=3, rows=10).options == {
        "m": 60,
        "ef_construction": 120,
    }
    ivf = Wanted(method="ivfflat").over(old, vector_type="vector", dimension=3, rows=50_000)
    assert (ivf.options, ivf.cast, ivf.own_setting) == ({"lists": 50}, True, None)
    assert not ivf.is_found_like(old)


@pytest.mark.parametrize(("rows", "lists"), [(0, 10), (50_000, 50), (1_000_000, 1000), (4_000_000, 2000)])
def test_lists_are_as_advised(rows: int, lists: int) -> None:
    assert advised_lists(rows) == lists


@pytest.mark.parametrize(("ef_search", "probes"), [(1, 1), (200, 10), (400, 20), (1000, 50)])
def test_more_lists_are_searched_for_a_larger_ef_search(ef_search: int, probes: int) -> None:
    assert SearchIndex(name="x", method="ivfflat", lists=100).probes(ef_search) == probes


@pytest.mark.parametrize(
    ("asked", "serves"),
    [
        (PDF, True),
        (PDF | {"field": "type"}, True),
        (joined("AND", NEW, joined("AND", PDF)), True),
        (None, False),
        (NEW, False),
        (PDF | {"value": "txt"}, False),
        (PDF | {"operator": "!="}, False),
        (joined("OR", PDF, NEW), False),
        (joined("NOT", PDF), False),
    ],
    ids=["itself", "without meta", "and more", "none", "another", "another value", "not equal", "or", "not"],
)
def test_a_partial_index_serves_where_its_condition_is_asked_for(asked: dict[str, Any] | None, serves: bool) -> None:
    index = SearchIndex(name="x", predicate="sql", filters=filters_of(comment_for(PDF)))
    assert index.serves(asked, function="cosine_similarity") is serves
    assert not index.serves(asked, function="l2_distance")


def test_what_a_partial_index_holds_is_not_asked_of_it() -> None:
    index = SearchIndex(name="x", predicate="sql", filters=PDF)
    assert index.rest(PDF) is None
    assert index.rest(joined("AND", PDF, NEW)) == joined("AND", NEW)


@pytest.mark.parametrize(
    "comment", [None, "theirs", "synapse index ", "synapse index []", 'synapse index {"filters": 1}']
)
def test_a_comment_of_somebody_else_is_no_filter(comment: str | None) -> None:
    assert filters_of(comment) is None


def test_half_precision_takes_half() -> None:
    full, half = (index_bytes(50_000, dimension=384, vector_type=kind) for kind in ("vector", "halfvec"))
    assert full == pytest.approx(97.7 * 2**20, rel=0.02)  # as measured: docs/indexes.md
    assert half == pytest.approx(48.8 * 2**20, rel=0.02)


@pytest.mark.parametrize(
    ("text", "size"), [("2GB", 2 * 2**30), ("512mb", 2**29), ("1.5 GiB", 3 * 2**29), ("1048576", 2**20)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "12", "-1GB", "1XB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(InvalidInputError, match="at least 1MB"):
        parse_size(text)
