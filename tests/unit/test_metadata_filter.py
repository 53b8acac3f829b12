"""One filter grammar: every form means the same, and an error shows its place."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from haystack import Document, Pipeline
from haystack.utils.filters import document_matches_filter
from hypothesis import given
from hypothesis import strategies as st

from components.filter_expression import MAX_LENGTH, parse_expression
from components.metadata_filter import MetadataFilter, parse_filter
from database.errors import InvalidInputError

EN = {"field": "meta.lang", "operator": "==", "value": "en"}
RECENT = {"field": "meta.year", "operator": ">=", "value": 2020}
BOTH = {"operator": "AND", "conditions": [EN, RECENT]}


@pytest.mark.parametrize(
    "given_filter",
    [
        'lang == "en" and year >= 2020',
        "lang = 'en' AND (year >= 2020)",
        "meta.lang == 'en' and `year` >= 2020",
        {"lang": "en", "year": {">=": 2020}},
        '{"lang": "en", "year": {">=": 2020}}',
        {"operator": "AND", "conditions": [{**EN, "field": "lang"}, RECENT]},
    ],
)
def test_every_form_means_the_same(given_filter: Any) -> None:
    assert parse_filter(given_filter) == BOTH


@pytest.mark.parametrize("nothing", [None, "", "  ", {}, "{}"])
def test_nothing_is_no_filter(nothing: Any) -> None:
    assert parse_filter(nothing) is None


@pytest.mark.parametrize(
    ("expression", "parsed"),
    [
        ("draft", {"field": "meta.draft", "operator": "==", "value": True}),
        ("id == 'x'", {"field": "id", "operator": "==", "value": "x"}),
        ("meta.id == 'x'", {"field": "meta.id", "operator": "==", "value": "x"}),
        ("a.b != -1.5e3", {"field": "meta.a.b", "operator": "!=", "value": -1500.0}),
        ("a not in []", {"field": "meta.a", "operator": "not in", "value": []}),
        ("a in [1, 'x', null, TRUE]", {"field": "meta.a", "operator": "in", "value": [1, "x", None, True]}),
        ("modified < 2024-01-31", {"field": "meta.modified", "operator": "<", "value": "2024-01-31"}),
        (r"a == 'it\'s \"so\"\n'", {"field": "meta.a", "operator": "==", "value": 'it\'s "so"\n'}),
        ("straße == 'ä'", {"field": "meta.straße", "operator": "==", "value": "ä"}),
    ],
)
def test_expressions(expression: str, parsed: dict[str, Any]) -> None:
    assert parse_expression(expression) == parsed


def test_not_binds_closer_than_and_and_and_closer_than_or() -> None:
    found = parse_expression("not a and b or c")
    assert found["operator"] == "OR"
    assert found["conditions"][0]["operator"] == "AND"
    assert found["conditions"][0]["conditions"][0]["operator"] == "NOT"


@pytest.mark.parametrize(
    ("expression", "caret", "expected"),
    [
        ("lang == and", 8, "a string in quotes, a number"),
        ("lang ==", 7, "a string in quotes, a number"),
        ("lang == en", 8, "a string in quotes, a number"),
        ('year > "en"', 7, "a number or a date"),
        ("year > true", 7, "a number or a date"),
        ('lang in "en"', 8, "a list in brackets"),
        ('lang in ["en"', 13, "',' or ']'"),
        ("lang not like 'x'", 9, "'in'"),
        ("a b", 2, "'and', 'or' or the end"),
        ("(a", 2, "'and', 'or' or ')'"),
        ("a and", 5, "a field, 'not' or '('"),
        ("day == 2024-02-31", 7, "a day that exists"),
        ("year >= 2024 && x", 13, "a field, an operator or a value"),
        ("a == 'open", 5, "a field, an operator or a value"),
        ("1 == a", 0, "a field, 'not' or '('"),
    ],
)
def test_errors_show_the_place(expression: str, caret: int, expected: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_filter(expression)
    sentence, shown, pointer = caught.value.message.splitlines()
    assert expected in sentence
    assert f"character {caret + 1}" in sentence
    assert shown == f"    {expression}"
    assert pointer.index("^") == 4 + caret


@pytest.mark.parametrize(
    "wrong",
    [
        "(" * 500 + "a",
        "not " * 500 + "a",
        "a or " * MAX_LENGTH + "a",
        '{"a": ',
        '{"a": ' * 2000,
        '["a"]',
        5,
        {"year": {"~": 3}},
        {"year": {}},
        {"year": {">=": "n/a"}},
        {"year": {">=": [1]}},
        {"year": float("nan")},
        {"year": object()},
        {"lang": {"in": "en"}},
        {1: 2},
        {"operator": "XOR", "conditions": []},
        {"operator": "AND", "conditions": [{"x": 1}]},
        {"operator": "AND", "conditions": "x"},
        {"field": "", "operator": "==", "value": 1},
        {"field": "meta.x", "operator": "like", "value": 1},
    ],
)
def test_what_is_no_filter_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidInputError):
        parse_filter(wrong)


def test_nobody_leaves_the_scope() -> None:
    component = MetadataFilter(scope={"tenant": "a"})
    scope = {"field": "meta.tenant", "operator": "==", "value": "a"}
    assert component.run() == {"filters": scope}
    for attempt in ("tenant == 'b' or true_field", 'not (tenant == "a")', {"tenant": "b"}, "tenant != 'a' or x"):
        found = component.run(filters=attempt)["filters"]
        assert found["operator"] == "AND"
        assert found["conditions"][0] == scope
        assert not document_matches_filter(
            found, Document(content="", meta={"tenant": "b", "true_field": True, "x": True})
        )


def test_the_component_is_saved_with_its_scope() -> None:
    pipeline = Pipeline()
    pipeline.add_component("filter", MetadataFilter(scope="tenant == 'a'"))
    loaded = Pipeline.loads(pipeline.dumps(), allowed_modules=["components.*"])
    assert loaded.run({"filter": {"filters": "x == 1"}}) == pipeline.run({"filter": {"filters": "x == 1"}})


# Random expressions, written out and evaluated here without the parser, against Haystack's own evaluation of what it returns.
FIELDS = ("a", "b", "c.d")
VALUES = st.one_of(st.integers(-3, 3), st.sampled_from(["x", 'q"\\', "é"]), st.booleans(), st.none())
LEAVES = st.one_of(
    st.tuples(st.just("truth"), st.sampled_from(FIELDS)),
    st.tuples(st.sampled_from(["==", "!="]), st.sampled_from(FIELDS), VALUES),
    st.tuples(st.sampled_from([">", ">=", "<", "<="]), st.just("n"), st.integers(-3, 3)),
    st.tuples(st.sampled_from(["in", "not in"]), st.sampled_from(FIELDS), st.lists(VALUES, max_size=3)),
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(["and", "or"]), st.lists(inner, min_size=2, max_size=3)),
        st.tuples(st.just("not"), inner),
    ),
    max_leaves=8,
)
META = st.fixed_dictionaries(
    {}, optional={"a": VALUES, "b": VALUES, "c": st.fixed_dictionaries({"d": VALUES}), "n": st.integers(-3, 3)}
)


def written(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(written(one) for one in value)}]"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return {True: "true", False: "false", None: "null"}.get(value, str(value)) if not _number(value) else str(value)


def _number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def expression(tree: Any) -> str:
    kind = tree[0]
    if kind in ("and", "or"):
        return "(" + f" {kind} ".join(expression(part) for part in tree[1]) + ")"
    if kind == "not":
        return f"not {expression(tree[1])}"
    return tree[1] if kind == "truth" else f"{tree[1]} {kind} {written(tree[2])}"


def holds(tree: Any, meta: dict[str, Any]) -> bool:
    kind = tree[0]
    if kind == "and":
        return all(holds(part, meta) for part in tree[1])
    if kind == "or":
        return any(holds(part, meta) for part in tree[1])
    if kind == "not":
        return not holds(tree[1], meta)
    value: Any = meta
    for part in tree[1].split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if kind == "truth":
        return bool(value == True)  # noqa: E712  # as Haystack compares: 1 is true
    wanted = tree[2]
    tests = {
        "==": lambda: value == wanted,
        "!=": lambda: value != wanted,
        "in": lambda: value in wanted,
        "not in": lambda: value not in wanted,
        ">": lambda: value > wanted,
        ">=": lambda: value >= wanted,
        "<": lambda: value < wanted,
        "<=": lambda: value <= wanted,
    }
    return bool((value is not None or kind[0] not in "<>") and tests[kind]())


@given(TREES, META)
def test_expressions_mean_what_they_say(tree: Any, meta: dict[str, Any]) -> None:
    found = parse_expression(expression(tree))
    assert document_matches_filter(found, Document(content="", meta=meta)) == holds(tree, meta)


@given(st.text(max_size=60))
def test_any_text_is_a_filter_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidInputError):
        found = parse_filter(text)
        assert found is None or found["operator"]
