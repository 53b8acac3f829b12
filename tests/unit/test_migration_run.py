"""How a migration command ends, and what it and its receipt show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer

from commands.migration_run import assignments, finish
from database.errors import InvalidInputError
from migration.receipt import SHOWN, Change, Finding, PartReceipt, Receipt
from migration.receipt_page import page, write_receipt
from migration.rejects import RejectsFile

SUM = "ab" * 16


def books(**changes: Any) -> PartReceipt:
    given = {"name": "papers", "target": "documents_papers", "records": 3, "copied": 3}
    return PartReceipt(**{**given, "source_checksum": SUM, "target_checksum": SUM, **changes})


def receipt(*parts: PartReceipt, kind: str = "migration", **changes: Any) -> Receipt:
    source = {
        "kind": "chroma directory",
        "location": "/data",
        "version": "1.5",
        "fingerprint": "f",
        "fingerprint_after": "f",
    }
    given: dict[str, Any] = {"source": source, "target": {"database": "app@host/name"}, "run": {"id": "abc"}}
    return Receipt(kind=kind, parts=list(parts), **{**given, **changes})


def code(found: Receipt, folder: Path | None = None) -> int:
    try:
        finish(found, folder, json_=True)
    except typer.Exit as exc:
        return exc.exit_code
    return 0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"records": 4}, "4 records, but 3 are accounted for"),
        ({"missing": Finding(count=1)}, "1 missing from documents_papers"),
        ({"different": Finding(count=2)}, "2 different in documents_papers"),
        ({"extra": Finding(count=1)}, "1 in, but not from the source"),
        ({"target_checksum": "0" * 32}, "the checksums of source and target differ"),
        ({"checks": {"search": {"passed": False, "found": "overlap@10 0.5"}}}, "search: overlap@10 0.5"),
    ],
)
def test_whatever_is_wrong_keeps_the_books_open(changes: dict[str, Any], reason: str) -> None:
    found = receipt(books(), books(**changes))
    assert [reason in sentence for sentence in found.open()] == [True]
    assert code(found) == 5
    assert "**The books are open:**" in page(found)


def test_exit_codes_tell_the_truth(capsys: pytest.CaptureFixture[str]) -> None:
    assert code(receipt(books())) == 0
    assert json.loads(capsys.readouterr().out)["closed"] is True
    assert code(receipt(books(copied=2, rejected=1))) == 3
    assert code(receipt(books(), problems=["something"])) == 5
    assert code(receipt(books(target_checksum=""), kind="dry run")) == 0
    assert (
        code(receipt(books(copied=2, target_checksum=""), kind="dry run", problems=["1 record needs a decision"])) == 4
    )
    changed = receipt(books())
    changed.source["fingerprint_after"] = "g"
    assert code(changed) == 5


def test_the_page_has_all_that_matters() -> None:
    part = books(
        copied=1, changed=1, rejected=1, changes={"nul": Change(policy="keep", records=1)}, notes={"recovered_from_log": 2},
        different=Finding(count=SHOWN + 1, examples=[{"id": "a", "fields": ["meta"]}] * SHOWN),
    )  # fmt: skip
    found = receipt(part, left_out=[{"name": "old", "reason": "empty"}], warnings=["Look at this."])
    found.rejects = {"path": "rejects.jsonl", "lines": 2, "sha256": "x"}
    text = page(found)
    for words in (
        "| `papers` | nul | keep | 1 |",
        "recovered_from_log",
        "`a (meta)`",
        "and 1 more",
        "`old`: empty",
        "Look at this.",
    ):
        assert words in text
    assert "| `papers` | `documents_papers` | 3 | 1 | 1 | 1 | 0 | 21 | 0 |" in text


def test_what_comes_from_a_source_steers_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    found = receipt(books(name="a\x1b[31m|b\n`c`", notes={"\x1b]0;x\x07": 1}), warnings=["w\x1b[2J"])
    finish(found, None, json_=False)
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "\x1b" not in page(found)
    assert all(line.count("`") % 2 == 0 for line in page(found).splitlines())


def test_files_are_whole_or_not_there(tmp_path: Path) -> None:
    data, text = write_receipt(receipt(books()), tmp_path / "new")
    assert json.loads(data.read_text())["parts"][0]["name"] == "papers"
    assert text.read_text() == page(receipt(books()))
    assert sorted(path.name for path in data.parent.iterdir()) == ["receipt.json", "receipt.md"]

    def broken() -> None:
        with RejectsFile(tmp_path / "rejects.jsonl") as rejects:
            rejects.write(part="p", id="1", kind="nul", action="changed", field="content", original="\x00\ud800")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken()
    assert not list(tmp_path.glob("rejects*"))


def test_assignments() -> None:
    assert assignments(["nul=keep", "a=b=l2"], "x") == {"nul": "keep", "a=b": "l2"}
    with pytest.raises(InvalidInputError, match="--on takes KIND=keep, but found 'nul'"):
        assignments(["nul"], "--on takes KIND=keep")
