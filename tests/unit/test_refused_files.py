"""Files that cannot be indexed say why; files that are only awkward take no longer than their length."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from haystack import Pipeline

from config import Settings
from database.errors import InvalidInputError
from pipelines.indexing import build_preparation_pipeline
from pipelines.preparation import prepare

CASES = sorted((Path(__file__).parents[1] / "fixtures" / "refused").iterdir())


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return build_preparation_pipeline(Settings())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_refusal_is_named(case: Path, pipeline: Pipeline) -> None:
    expected = (case / "refusal.txt").read_text(encoding="utf-8").strip()
    with pytest.raises(InvalidInputError) as refused:
        prepare(pipeline, next(case.glob("input*")), {})
    assert refused.value.message.startswith(expected)


def test_file_that_is_not_there(tmp_path: Path, pipeline: Pipeline) -> None:
    with pytest.raises(InvalidInputError, match="it cannot be read: No such file"):
        prepare(pipeline, tmp_path / "nothing.md", {})


def test_folder_named_like_a_file(tmp_path: Path, pipeline: Pipeline) -> None:
    (tmp_path / "folder.md").mkdir()
    with pytest.raises(InvalidInputError, match="it cannot be read: Is a directory"):
        prepare(pipeline, tmp_path / "folder.md", {})


def test_large_file(tmp_path: Path) -> None:
    (tmp_path / "large.txt").write_text("x " * 600)
    with pytest.raises(InvalidInputError, match="it has 1,200 bytes, more than the 1,000 allowed"):
        prepare(build_preparation_pipeline(Settings(max_file_bytes=1000)), tmp_path / "large.txt", {})


def test_quote_that_is_never_closed(tmp_path: Path, pipeline: Pipeline) -> None:
    (tmp_path / "open.csv").write_text('a,b\n"' + "x," * 600_000)
    with pytest.raises(InvalidInputError, match="it is not a table of values: line 2: field larger than field limit"):
        prepare(pipeline, tmp_path / "open.csv", {})


def test_failure_does_not_spoil_the_next_file(tmp_path: Path, pipeline: Pipeline) -> None:
    (tmp_path / "bad.pdf").write_bytes(b"%PDF-garbage")
    (tmp_path / "good.txt").write_text("It works.")
    with pytest.raises(InvalidInputError):
        prepare(pipeline, tmp_path / "bad.pdf", {})
    assert prepare(pipeline, tmp_path / "good.txt", {}).text == "It works."


def test_bytes_are_not_kept_with_a_failure(tmp_path: Path, pipeline: Pipeline) -> None:
    from haystack.core.errors import PipelineRuntimeError

    (tmp_path / "bad.pdf").write_bytes(b"%PDF-" + b"garbage" * 20_000)
    with pytest.raises(PipelineRuntimeError) as failed:
        pipeline.run({"router": {"sources": [str(tmp_path / "bad.pdf")]}})
    assert len(str(failed.value.pipeline_snapshot.to_dict())) < 50_000


AWKWARD: dict[str, Any] = {
    "one-line.txt": lambda n: "word " * n,
    "no-space.txt": lambda n: "a" * (4 * n),
    "spaces.txt": lambda n: "a" + " " * (8 * n) + "b",
    "newlines.txt": lambda n: "a" + "\n" * (8 * n) + "b",
    "dots.txt": lambda n: "." * (2 * n),
    "headings.md": lambda n: "# h\n" * (n // 5),
    "brackets.md": lambda n: "# " + "[" * n + "\n" + "[a](" * n,
    "front.md": lambda n: "---\n" + "a: b\n" * n,
    "deep.html": lambda n: "<div>" * n + "text",
    "comments.html": lambda n: "text" + "<!--" * n,
    "tags.html": lambda n: "text" + "<a " * n,
    "rows.csv": lambda n: "a,b\n" + "1,2\n" * n,
    "records.jsonl": lambda n: '{"id": 1, "text": "one"}\n' * (n // 20),
    "definitions.py": lambda n: "def f(): pass\n" * (n // 10),
    "parentheses.py": lambda n: "(" * n,
    "spaces.c": lambda n: "int " * n + "(\n",
}


@pytest.mark.parametrize("name", AWKWARD)
def test_time_grows_with_the_length_alone(name: str, tmp_path: Path, pipeline: Pipeline) -> None:
    """Five times the length: about five times the time, where a quadratic step would take twenty-five."""

    def seconds(size: int) -> float:
        path = tmp_path / name
        path.write_text(AWKWARD[name](size))
        started = time.process_time()
        prepare(pipeline, path, {})
        return time.process_time() - started

    seconds(100)
    allowed = 15 * max(seconds(10_000), 0.05)
    assert any(seconds(50_000) < allowed for _ in range(2))  # the second time counts where the machine was busy
