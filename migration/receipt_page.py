"""The receipt for people: one page of Markdown."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from migration.receipt import Finding, PartReceipt, Receipt, printable


def write_receipt(receipt: Receipt, folder: Path, *, name: str = "receipt") -> tuple[Path, Path]:
    """
    Write the receipt as JSON and as a page, each replaced whole or not at all.

    :param folder: Made where it is missing.
    :param name: Of the files, without their ending.
    :returns: The JSON file and the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(receipt.to_dict(), indent=2, ensure_ascii=False, default=str) + "\n"
    files = folder / f"{name}.json", folder / f"{name}.md"
    for path, content in zip(files, (text, page(receipt)), strict=True):
        partial = path.with_name(path.name + ".partial")
        partial.write_text(content, encoding="utf-8", errors="backslashreplace")
        os.replace(partial, path)
    return files


def page(receipt: Receipt) -> str:
    """The receipt as Markdown."""
    lines = [
        f"# {receipt.kind.capitalize()} {receipt.run.get('id') or ''}".rstrip(),
        "",
        *_verdict(receipt),
        "",
        *_facts(receipt),
        "",
        *_books(receipt.parts),
        *_section("Changes", _changes(receipt)),
        *_section("Checks", _checks(receipt.parts)),
        *_section("Not as expected", _findings(receipt.parts)),
        *_section("Left out", [f"- {_code(item['name'])}: {item['reason']}" for item in receipt.left_out]),
        *_section("Worth knowing", [f"- {warning}" for warning in receipt.warnings]),
        *_section("Time", _times(receipt)),
    ]
    return "\n".join(printable(line) for line in lines)


def _verdict(receipt: Receipt) -> list[str]:
    reasons = receipt.open()
    if receipt.kind == "dry run":
        return ["Nothing was written."] + [f"- {reason}" for reason in receipt.problems]
    if not reasons:
        return [
            "**The books are closed.** Every record of the source is accounted for, and was read back as it should be."
        ]
    return ["**The books are open:**", "", *(f"- {reason}" for reason in reasons)]


def _facts(receipt: Receipt) -> list[str]:
    source, target, rejects = receipt.source, receipt.target, receipt.rejects
    fingerprint = source.get("fingerprint")
    afterwards = "the same" if source.get("fingerprint_after") == fingerprint else "another"
    rows = [
        ("source", f"{source.get('kind', '')} {_code(source.get('location', ''))}"),
        ("written by", source.get("version")),
        ("its fingerprint", f"{_code(fingerprint)}, {afterwards} afterwards" if fingerprint else None),
        ("target", " ".join(str(value) for value in target.values() if value)),
        ("choices", _code(json.dumps(receipt.options, sort_keys=True)) if receipt.options else None),
        ("rejects file", f"{_code(rejects['path'])}, {rejects['lines']:,} lines" if rejects.get("path") else None),
    ]
    return _table(("", ""), [(name, value) for name, value in rows if value])


def _books(parts: Sequence[PartReceipt]) -> list[str]:
    head = ("from", "to", "records", "copied", "changed", "rejected", "missing", "different", "extra")
    rows = [
        (
            _code(part.name),
            _code(part.target),
            *(f"{count:,}" for count in (part.records, part.copied, part.changed, part.rejected)),
            *(f"{finding.count:,}" for finding in (part.missing, part.different, part.extra)),
        )
        for part in parts
    ]
    sums = _table(
        ("from", "checksum of the source", "of the target"),
        [(_code(part.name), _code(part.source_checksum), _code(part.target_checksum)) for part in parts],
    )
    return ["## Books", "", *_table(head, rows), "", *sums]


def _changes(receipt: Receipt) -> list[str]:
    rows = [
        (_code(part.name), kind, change.policy, f"{change.records:,}")
        for part in receipt.parts
        for kind, change in part.changes.items()
    ]
    notes = [
        (_code(part.name), name, "as it is", f"{count:,}")
        for part in receipt.parts
        for name, count in part.notes.items()
    ]
    return _table(("from", "kind", "policy", "records"), [*rows, *notes]) if rows or notes else []


def _checks(parts: Sequence[PartReceipt]) -> list[str]:
    rows = [
        (_code(part.name), check, "passed" if facts["passed"] else "**failed**", str(facts.get("found", "")))
        for part in parts
        for check, facts in part.checks.items()
    ]
    return _table(("from", "check", "", "found"), rows) if rows else []


def _findings(parts: Sequence[PartReceipt]) -> list[str]:
    lines = []
    for part in parts:
        for name in ("missing", "different", "extra"):
            finding: Finding = getattr(part, name)
            if finding.count:
                shown = ", ".join(_code(_example(example)) for example in finding.examples)
                more = (
                    f" and {finding.count - len(finding.examples):,} more"
                    if finding.count > len(finding.examples)
                    else ""
                )
                lines.append(f"- {name} in {_code(part.target)}: {shown}{more}")
    return lines


def _example(example: Any) -> str:
    if isinstance(example, dict) and "fields" in example:
        return f"{example['id']} ({', '.join(example['fields'])})"
    return example if isinstance(example, str) else json.dumps(example, ensure_ascii=False, default=str)


def _times(receipt: Receipt) -> list[str]:
    seconds: dict[str, float] = receipt.run.get("seconds", {})
    return _table(("step", "seconds"), [(step, f"{value:,.1f}") for step, value in seconds.items()]) if seconds else []


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return ["", f"## {title}", "", *lines] if lines else []


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    return [_row(head), _row("---" for _ in head), *(_row(row) for row in rows)]


def _row(cells: Iterable[Any]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _code(text: Any) -> str:
    """Text that came from the source, so that it cannot be taken for Markdown."""
    shown = str(text).replace("`", "'")
    return f"`{shown}`" if shown else ""
