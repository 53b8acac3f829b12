"""Metadata from outside a file: its types, where it comes from and who wins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from database.errors import InvalidInputError
from pipelines.source_metadata import OutsideMetadata, PathPattern, metadata_hash, parse_given, read_sidecar


@pytest.mark.parametrize(
    ("text", "value"),
    [("2024", 2024), ("2.5", 2.5), ("True", True), ("null", None), ("2024-05-01", "2024-05-01"), ("007", "007")],
)
def test_given_values_are_typed(text: str, value: Any) -> None:
    given = parse_given([f"key={text}"])["key"]
    assert given == value
    assert type(given) is type(value)


def test_given_values_may_be_json() -> None:
    given = parse_given(["tags=[1, 2]", 'year="2024"', "text={not json", "formula=a=b", " key = x "])
    assert given == {"tags": [1, 2], "year": "2024", "text": "{not json", "formula": "a=b", "key": "x"}


@pytest.mark.parametrize("pair", ["year", "=2024", " =1", "a=x\0y", 'a=["\\ud800"]', "a=[1e999]"])
def test_given_values_that_cannot_be_used(pair: str) -> None:
    with pytest.raises(InvalidInputError, match="--meta expects"):
        parse_given([pair])


@pytest.mark.parametrize(
    ("pattern", "path", "values"),
    [
        ("{team}/{year}/…", "sales/2024/q1/a.txt", {"team": "sales", "year": 2024}),
        ("{team}/{year}/...", "sales/2024/a.txt", {"team": "sales", "year": 2024}),
        ("{team}/**", "sales/a.txt", {"team": "sales"}),
        ("{team}/…", "a.txt", None),
        ("{team}/{name}.md", "sales/a.b.md", {"team": "sales", "name": "a.b"}),
        ("{team}/{name}.md", "sales/x/a.md", None),
        ("*/{year}-{month}-*.txt", "x/2024-05-notes.txt", {"year": 2024, "month": "05"}),
        ("docs+/{lang}/…", "docs+/en/a.md", {"lang": "en"}),
        ("docs/{lang}/…", "other/en/a.md", None),
        ("{a}/…", "line\nbreak/a.md", {"a": "line\nbreak"}),
    ],
)
def test_path_patterns(pattern: str, path: str, values: dict[str, Any] | None) -> None:
    assert PathPattern(pattern).match(path) == values


@pytest.mark.parametrize("pattern", ["", "docs/…", "{}/…", "{a}/{a}/…"])
def test_patterns_that_name_nothing(pattern: str) -> None:
    with pytest.raises(InvalidInputError, match="path pattern"):
        PathPattern(pattern)


def test_the_more_deliberate_wins(tmp_path: Path) -> None:
    sidecar = tmp_path / "a.txt.meta.json"
    sidecar.write_text('{"team": "sidecar", "year": 1999, "draft": true}')
    metadata = OutsideMetadata(given={"team": "given"}, patterns=[PathPattern("{team}/{year}/{part}/…")])
    assert metadata.of("x/2024/y/a.txt", str(sidecar)) == {"team": "given", "year": 1999, "part": "y", "draft": True}


def test_the_first_pattern_that_matches_counts() -> None:
    metadata = OutsideMetadata(patterns=[PathPattern("{team}/{year}/…"), PathPattern("{team}/…")])
    assert metadata.of("a/1/f.txt", None) == {"team": "a", "year": 1}
    assert metadata.of("a/f.txt", None) == {"team": "a"}
    assert metadata.of("f.txt", None) == {}


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b"\xff{}", b'{"a": NaN}', b'{"a": "\\u0000"}', b'{"a": ["\\ud800"]}', b"[" * 100_000],
    ids=["empty", "list", "cut", "latin", "nan", "nul", "surrogate", "deep"],
)
def test_sidecars_that_cannot_be_used(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.meta.json"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"a\.meta\.json"):
        read_sidecar(str(path))


def test_a_sidecar_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.meta.json"
    path.write_bytes(b'\xef\xbb\xbf{"backslash": "\\\\u0000"}')
    assert read_sidecar(str(path)) == {"backslash": "\\u0000"}


def test_the_hash_does_not_depend_on_order() -> None:
    assert metadata_hash({"a": 1, "b": 2}) == metadata_hash({"b": 2, "a": 1})
    assert metadata_hash({"a": 1}) != metadata_hash({"a": "1"})
