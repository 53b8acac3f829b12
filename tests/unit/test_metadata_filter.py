"""One filter grammar: every form means the same, and an error shows its place."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from haystack import Document, Pipeline
from haystack.utils.filters import document_matches_filter
from hypothesis import given
from hypothesis import strategies as st

from components import field_knowledge
from components.filter_expression import MAX_LENGTH, parse_expression
from components.metadata_filter import MetadataFilter, parse_filter
from database.errors import InvalidInputError
from database.filter_reference import matches

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
        ("tags contains 'x'", {"field": "meta.tags", "operator": "array_contains", "value": ["x"]}),
        ("tags contains ['x', 1]", {"field": "meta.tags", "operator": "array_contains", "value": ["x", 1]}),
        ("tags OVERLAPS ['x']", {"field": "meta.tags", "operator": "array_overlaps", "value": ["x"]}),
        ("title like 'a%'", {"field": "meta.title", "operator": "like", "value": "a%"}),
        ("title not like 'a%'", {"field": "meta.title", "operator": "not like", "value": "a%"}),
        ("like like 'a'", {"field": "meta.like", "operator": "like", "value": "a"}),
        ("`a.b` == 1", {"field": "meta.`a.b`", "operator": "==", "value": 1}),
        ("`my field`.`x` == 1", {"field": "meta.my field.x", "operator": "==", "value": 1}),
        ("a.`b``c.d` == 1", {"field": "meta.a.`b``c.d`", "operator": "==", "value": 1}),
        ("`meta.a` == 1", {"field": "meta.`meta.a`", "operator": "==", "value": 1}),
        ("author.name == 'x'", {"field": "meta.author.name", "operator": "==", "value": "x"}),
        ("straße == 'ä'", {"field": "meta.straße", "operator": "==", "value": "ä"}),
    ],
)
def test_expressions(expression: str, parsed: dict[str, Any]) -> None:
    assert parse_expression(expression) == parsed


@pytest.mark.parametrize(
    ("mapping", "expression"),
    [
        ({"tags": {"contains": "x"}}, "tags contains 'x'"),
        ({"tags": {"array_contains": ["x", "y"]}}, "tags contains ['x', 'y']"),
        ({"tags": {"overlaps": ["x", "y"]}}, "tags overlaps ['x', 'y']"),
        ({"tags": {"not contains": "x"}}, "tags not contains 'x'"),
        ({"title": {"not like": "a%"}}, "title not like 'a%'"),
        ({"`a.b`": 1}, "`a.b` == 1"),
    ],
)
def test_mappings_have_the_same_operators(mapping: dict[str, Any], expression: str) -> None:
    assert parse_filter(mapping) == parse_filter(expression)


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
        ("lang not near 'x'", 9, "'in', 'like', 'contains' or 'overlaps'"),
        ("lang like x", 10, "a pattern in quotes"),
        ("lang like 'x\\\\\\\\\\\\'", 10, "a pattern in quotes"),
        ("tags contains []", 14, "a list that is not empty"),
        ("tags overlaps 'x'", 14, "a list in brackets"),
        ("year == 1e999", 8, "a number that is not as large"),
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
        {"tags": {"contains": []}},
        {"tags": {"overlaps": [object()]}},
        {"title": {"like": 5}},
        {"title": {"like": "a\\"}},
        {"field": "meta.x", "operator": ["=="], "value": 1},
        {"x": {"==": 10**5000, "~": 10**5000}},
        {"x": {"in": 10**5000}},
        '{"year": 1, "year": 2}',
        '{"year": ' + "1" * 5000 + "}",
        "year == " + "1" * 5000,
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
    assert component.run() == {"filters": scope, "warnings": []}
    for attempt in ("tenant == 'b' or true_field", 'not (tenant == "a")', {"tenant": "b"}, "tenant != 'a' or x"):
        found = component.run(filters=attempt)["filters"]
        assert found["operator"] == "AND"
        assert found["conditions"][0] == scope
        assert not document_matches_filter(
            found, Document(content="", meta={"tenant": "b", "true_field": True, "x": True})
        )


ATTEMPTS: list[Any] = [
    "tenant == 'b' or true_field",
    "true_field or tenant == 'b' or true_field",
    "not (tenant == 'a')",
    "not (not true_field)",
    "meta.tenant == 'b'",
    "meta.meta.tenant == 'b' or true_field",
    "`meta.tenant` == 'a' or true_field",
    "tenant == 'b'",
    "\uff54enant == 'a' or true_field",
    {"tenant": "b"},
    {"operator": "OR", "conditions": [{"field": "meta.true_field", "operator": "==", "value": True}]},
    {"operator": "OR", "conditions": []},
    {"operator": "NOT", "conditions": [{"operator": "OR", "conditions": []}]},
    {"operator": "AND", "conditions": []},
    '{"operator": "NOT", "conditions": [{"field": "meta.tenant", "operator": "==", "value": "a"}]}',
    None,
    {},
    "",
]


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_no_filter_widens_the_scope(attempt: Any) -> None:
    component = MetadataFilter(scope="tenant == 'a'")
    outside = Document(
        content="", meta={"tenant": "b", "true_field": True, "meta": {"tenant": "b"}, "meta.tenant": "a"}
    )
    assert matches(component.run(filters=attempt)["filters"], outside) is not True


def test_what_is_handed_out_or_in_may_change_and_the_scope_does_not() -> None:
    given = {"tenant": {"in": ["a"]}}
    component = MetadataFilter(scope=given)
    wanted = component.run()["filters"]
    given["tenant"]["in"].append("b")
    handed_out = component.run()["filters"]
    assert handed_out == wanted
    handed_out["value"].append("b")
    handed_out["field"] = "meta.other"
    narrowed = component.run("x == 1")["filters"]
    narrowed["conditions"][0]["value"].append("b")
    narrowed["conditions"].pop(0)
    assert component.run()["filters"] == wanted
    assert component.to_dict()["init_parameters"]["scope"] == {"tenant": {"in": ["a"]}}


class Store:
    """A document store of another make, which counts how often it is asked."""

    def __init__(self, info: dict[str, dict[str, str]] | Exception) -> None:
        self.info = info
        self.asked = 0

    def to_dict(self) -> dict[str, Any]:
        return {"type": "tests.unit.test_metadata_filter.Store", "init_parameters": {"info": self.info}}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Store:
        return cls(**data["init_parameters"])

    def get_metadata_fields_info(self) -> dict[str, dict[str, str]]:
        self.asked += 1
        if isinstance(self.info, Exception):
            raise self.info
        return self.info


class Sampled(Store):
    """One that is asked as ours is."""

    def __init__(self, types: dict[str, set[str]], *, rare: str = "") -> None:
        super().__init__({})
        self.types = types
        self.rare = rare

    def sample_metadata_fields(self) -> dict[str, set[str]]:
        self.asked += 1
        return dict(self.types)

    def has_metadata_field(self, name: str) -> bool:
        self.asked += 1
        return name == self.rare


TYPES = {
    "year": {"number"},
    "lang": {"string"},
    "tags": {"array", "null"},
    "mixed": {"number", "string"},
    "author": {"object"},
    "author.name": {"string"},
    "`a.b`": {"number"},
}


@pytest.mark.parametrize(
    ("filter_", "nearest"),
    [
        ("yaer == 2020", "the nearest is year"),
        ("lang == 'en' and not (Language == 'en' or LANG == 'x')", "the nearest is lang"),
        ("author.nme == 'x'", "the nearest is author.name"),
        ("a.b == 1", "the nearest is `a.b`"),
        ("zzz == 1", "They have `a.b`, author"),
        ({"meta.yaer": 1}, "the nearest is year"),
    ],
)
def test_an_unknown_field_is_an_error_that_names_the_nearest(filter_: Any, nearest: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        MetadataFilter(document_store=Sampled(TYPES)).run(filter_)
    assert nearest in str(caught.value)


@pytest.mark.parametrize(
    ("filter_", "warning"),
    [
        ("year == '2024'", "year is always a number, which '==' '2024' never matches."),
        ("year in ['2024', '2025']", "year is always a number, which 'in' ['2024', '2025'] never matches."),
        ("lang > 5", "lang is always text, which '>' 5 never matches."),
        ("tags == 'x'", "write 'contains' or 'overlaps'"),
        ("lang contains 'x'", "never a list"),
        ("year like '20%'", "year is always a number"),
        ("author == 'x'", "author is always a mapping"),
        ("not (year == '2024')", "year is always a number"),
    ],
)
def test_a_type_that_no_document_has_is_a_warning(filter_: str, warning: str, caplog: pytest.LogCaptureFixture) -> None:
    found = MetadataFilter(document_store=Sampled(TYPES)).run(filter_)
    assert found["filters"] == parse_filter(filter_)
    assert len(found["warnings"]) == 1
    assert warning in found["warnings"][0]
    assert warning in caplog.text


@pytest.mark.parametrize(
    "filter_",
    [
        "year == true",
        "year == null",
        "mixed == 'x' and mixed > 3",
        "year in [2020, '2024']",
        "lang > 2024-01-01",
        "tags contains 'x'",
        "tags == null",
        "id == 'x' and content == 'y'",
        {"field": "meta", "operator": "!=", "value": None},
    ],
)
def test_what_may_match_is_no_warning(filter_: Any) -> None:
    assert MetadataFilter(document_store=Sampled(TYPES)).run(filter_)["warnings"] == []


def test_the_store_is_asked_once_a_minute_and_not_without_a_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Sampled(TYPES, rare="rare")
    component = MetadataFilter(scope="nobody.knows == 1", document_store=store)
    component.run()
    component.run("id == 'x'")
    assert store.asked == 0
    for _ in range(5):
        component.run("year == 2020")
    assert store.asked == 1
    for _ in range(5):
        component.run("rare == 2020")  # not in the sample
    assert store.asked == 2
    monkeypatch.setattr(field_knowledge, "LIFETIME", 0)
    component.run("year == 2020")
    assert store.asked == 3


@pytest.mark.parametrize("store", [Store({}), Store(ConnectionError("down")), object()])
def test_filters_work_where_nothing_is_known(store: Any) -> None:
    component = MetadataFilter(document_store=store)
    for _ in range(3):
        assert component.run("anything == 1") == {"filters": parse_filter("anything == 1"), "warnings": []}
    if isinstance(store, Store):
        assert store.asked == 1


def test_stores_of_others_tell_only_of_the_outermost_keys() -> None:
    component = MetadataFilter(document_store=Store({"year": {"type": "integer"}, "author": {"type": "text"}}))
    assert component.run("author.name == 'x' and author == 5")["warnings"] == []
    assert len(component.run("year == 'x'")["warnings"]) == 1
    with pytest.raises(InvalidInputError, match="the nearest is year"):
        component.run("yeah == 1")


def test_the_component_is_saved_with_its_store() -> None:
    pipeline = Pipeline()
    pipeline.add_component(
        "filter", MetadataFilter(scope="x == 1", document_store=Store({"year": {"type": "integer"}}))
    )
    saved = pipeline.dumps()
    loaded = Pipeline.loads(saved, allowed_modules=["components.*", "tests.*"])
    assert loaded.dumps() == saved
    assert loaded.run({"filter": {"filters": "year == 'x'"}})["filter"]["warnings"]


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
