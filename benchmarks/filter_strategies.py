"""
Random filters and random metadata, awkward on purpose, for Hypothesis; and whether the database reads them as the reference does.

Used by tests/integration/test_filters_against_reference.py, and by whoever wants to run more of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from haystack import Document
from hypothesis import strategies as st
from psycopg.sql import SQL, Identifier

from database.connection import Database
from database.filter_reference import matches
from database.filters import condition

NUMBERS: list[Any] = [0, 1, -1, 2, 9, 9.5, 0.1, 0.30000000000000004, 1.0, -0.0, 1e16, 10**16, 1e23, 10**23, 2**53 + 1]
NUMBERS += [2.0**53, 1e-7, 5e-324, 1.7976931348623157e308, 10**400, -(10**4299), True, False]
TEXTS = [
    "",
    "a",
    "A",
    "1",
    "true",
    "null",
    "n/a",
    "50%",
    "it's",
    'say "x"',
    "back\\slash",
    "ünïcode",
    "\U0001f600",
    "{}",
]
TEXTS += ["may", "10", "a" * 499, "a" * 500, "a" * 501, "a\nb", "ab", "`q`"]
DATES = ["2024-01-31", "2024-01-31T00:00", "2024-01-31T05:30:00+05:30", "2024-01-31T00:00:00Z", "2024-01-30T24:00"]
DATES += ["2024-01-31 10:00:00.123456", "2024-01-31T10:00:00.1234567Z", "2023-06-01T00:00:00-08:00"]
DATES += ["0001-01-01T00:00+14:00", "9999-12-31T23:59:59-14:00", "2024-02-29", "2023-06-01t10", "2024-01-31T100000z"]
DATES += ["2023-11-30", "2023-12-31T23:59:59.5", "2024-01-31T00:00:00-00:00", "2024-01-30T16:00:00-15:59"]
NO_DATES = [
    "2023-02-29",
    "2024-13-01",
    "2024-00-01",
    "2024-01-00",
    "2023-04-31",
    "2024-01-31T25:00",
    "2024-01",
    "20240131",
]
NO_DATES += [
    "0000-01-01",
    "10000-01-01",
    "2024-01-31T10:00:00+24:00",
    "2024-01-31T10:00:60",
    "2024-01-31x10:00",
    " 2024-01-31",
]
NO_DATES += ["2024-01-31\n", "2024-01-31T29:00:00", "infinity", "now", "2024-01-31T10:00:00 PST"]
SCALARS: list[Any] = [*NUMBERS, *TEXTS, *DATES, *NO_DATES, None]
CONTAINERS: list[Any] = [
    [],
    {},
    [1],
    [True],
    [1.0, "a"],
    ["2024-01-31"],
    {"a": 1},
    {"a": True},
    {"a": {"b": [0, None]}},
]
CONTAINERS += [
    [[1]],
    [None],
    {"b": 2, "a": 1},
    {"0": "x"},
    ["a", "A", "50%"],
    [{"a": 1, "b": 2}],
    {"a.b": 3},
    ["a", ["a", 2]],
]
UNSTORABLE: list[Any] = [
    float("nan"),
    float("inf"),
    float("-inf"),
    "\x00",
    "\ud800",
    [float("nan")],
    ["\x00"],
]
PATTERNS = ["%", "", "a%", "_", "%\\%", "a\nb", "%A%", "ü%e", "\\\\", "back\\\\%", "%\x00", "(.*)", "a_"]

KEYS = ["k", "l", "%s", "a.b", "0", "quote'\"", "ключ", "with space", "`k", "a`b", ""]
PATHS = [
    "k",
    "l",
    "k.a",
    "k.a.b",
    "k.0",
    "missing",
    "%s",
    "quote'\"",
    "ключ",
    "",
    "`a.b`",
    "k.`a.b`",
    "with space",
    "`k",
]
PATHS += ["```k`", "a`b", "a.b", "\x00", "\ud800"]

_now = datetime.fromisoformat
DATETIMES = [_now(text) for text in DATES if text not in ("2024-01-30T24:00", "2024-01-31T100000z")]

long_texts = st.sampled_from([600, 100_000]).map("b".__mul__)
values = st.one_of(*[st.sampled_from(SCALARS + CONTAINERS)] * 9, long_texts)
moments = st.datetimes(datetime(2023, 1, 1), datetime(2024, 12, 31)) | st.sampled_from(DATETIMES)
huge = st.builds(pow, st.sampled_from([10, -10]), st.just(5001))  # too long for Python to print
compared = values | moments | huge | st.sampled_from(UNSTORABLE)
fields = st.sampled_from(
    [*(f"meta.{path}" for path in PATHS), "k", "`a.b`", "content", "id", "meta", "score", "other.k"]
)
ordered = st.sampled_from([*NUMBERS, *DATES, None, float("nan"), float("inf"), float("-inf")]) | moments | huge
elements = st.lists(values.filter(lambda value: not isinstance(value, datetime)), min_size=1, max_size=3)
leaves = st.one_of(
    st.tuples(fields, st.sampled_from(["==", "!="]), compared),
    st.tuples(fields, st.sampled_from(["in", "not in"]), st.lists(compared, max_size=4)),
    st.tuples(fields, st.sampled_from([">", ">=", "<", "<="]), ordered),
    st.tuples(fields, st.sampled_from(["array_contains", "array_overlaps"]), elements),
    st.tuples(fields, st.sampled_from(["like", "not like"]), st.sampled_from(PATTERNS)),
).map(lambda leaf: dict(zip(("field", "operator", "value"), leaf, strict=True)))
filters = st.recursive(
    leaves,
    lambda children: st.fixed_dictionaries(
        {"operator": st.sampled_from(["AND", "OR", "NOT"]), "conditions": st.lists(children, max_size=3)}
    ),
    max_leaves=5,
)
"""Well-formed filters."""

metadata = st.dictionaries(st.sampled_from(KEYS), values, max_size=4)
contents = st.sampled_from([None, "a", *DATES])


def differences(
    database: Database, table: Identifier, documents: Sequence[Document], tried: Sequence[dict[str, Any]]
) -> list[tuple[dict[str, Any], Document, bool | None, bool | None]]:
    """
    Where the database and the reference differ, of many filters in one statement.

    :param database: Where the table is.
    :param table: A documents table that holds the documents, and may hold others.
    :param documents: As they were written.
    :param tried: The filters.
    :returns: Filter, document, the reference's answer, the database's; `None` is unknown.
    """
    parts, params = [], {}
    for number, filter_ in enumerate(tried):
        for negated, one in enumerate((filter_, {"operator": "NOT", "conditions": [filter_]})):
            sql, values_ = condition(one, prefix=f"f{number}_{negated}")
            parts.append(SQL("({}) IS TRUE").format(sql))
            params |= values_
    statement = SQL("SELECT id, ARRAY[{}] AS found FROM {}").format(SQL(", ").join(parts), table)
    answers = {row["id"]: row["found"] for row in database.read(statement, params)}
    different = []
    for document in documents:
        found = answers[document.id]
        for number, filter_ in enumerate(tried):
            holds, fails = found[2 * number : 2 * number + 2]
            answer = "both" if holds and fails else True if holds else False if fails else None
            if (wanted := matches(filter_, document)) != answer:
                different.append((filter_, document, wanted, answer))
    return different
