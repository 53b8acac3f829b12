"""JSON and JSON Lines, record by record."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from haystack import Document, component
from haystack.dataclasses import ByteStream

from components.converted_text import ConvertedText
from components.decoding import decoded
from components.source_meta import user_meta
from database.errors import InvalidInputError

TEXT_FIELDS = ("text", "content", "body", "page_content", "contents", "document", "passage", "abstract")
"""Names of the field that holds a record's text; the first that there is counts."""


@component
class JSONConverter:
    """
    Converts JSON and JSON Lines: each record is a section of its own with its fields as metadata.

    A record's text is its field `text`, `content`, `body` or the like; without one, all of its fields as
    `name: value`. A list is a list of records, and so is the one list in an object that holds nothing else of weight.
    """

    @component.output_types(documents=list[Document])
    def run(self, sources: list[ByteStream]) -> dict[str, Any]:
        """
        Convert.

        :param sources: From `SourceRouter`.
        :raises InvalidInputError: If one is not JSON, or a field cannot be stored; the message names line or record.
        """
        return {"documents": [_converted(stream) for stream in sources]}


def _converted(stream: ByteStream) -> Document:
    text = decoded(stream.data)
    is_lines = stream.meta.get("file_type") != "json"
    records = list(_lines(text)) if is_lines else _records(_loaded(text))
    converted = ConvertedText()
    for name, record in records:
        _add(record, converted, name=name, single=len(records) == 1, given=stream.meta)
    return converted.document(stream, empty="it has no records with text")


def _add(record: Any, converted: ConvertedText, *, name: str, single: bool, given: dict[str, Any]) -> None:
    if not isinstance(record, dict):
        converted.add(record if isinstance(record, str) else "\n".join(_rendered(record)))
        return
    field = next((key for key in TEXT_FIELDS if isinstance(record.get(key), str) and record[key].strip()), None)
    text = record[field] if field else "\n".join(_rendered(record))
    meta = user_meta({key: value for key, value in record.items() if key != field}, origin=name)
    for key in ("title", "language"):
        if key in given:  # what was given from outside wins
            meta.pop(key, None)
    converted.add(text, meta=meta)


def _records(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        lists = [found for found in value.values() if isinstance(found, list) and found and isinstance(found[0], dict)]
        has_text = any(isinstance(value.get(key), str) for key in TEXT_FIELDS)
        if len(lists) != 1 or has_text:
            return [("its object", value)]
        value = lists[0]
    if isinstance(value, list):
        return [(f"record {number:,}", record) for number, record in enumerate(value, 1)]
    return [("its value", value)]


def _lines(text: str) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield f"line {number:,}", _loaded(line, where=f"line {number:,}: ")


def _loaded(text: str, *, where: str = "") -> Any:
    try:
        return json.loads(text.removeprefix("\ufeff"), parse_constant=_refuse_constant)
    except RecursionError:
        raise InvalidInputError(f"{where}it is nested too deeply") from None
    except ValueError as exc:
        raise InvalidInputError(f"it is not JSON: {where}{str(exc)[:200]}") from exc


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def _rendered(value: Any, path: str = "") -> Iterator[str]:
    """Every value on a line of its own, after the names that lead to it."""
    match value:
        case dict():
            for key, inner in value.items():
                yield from _rendered(inner, f"{path}.{key}" if path else str(key))
        case list() if all(not isinstance(item, dict | list) for item in value):
            yield from _rendered(", ".join(_scalar(item) for item in value), path)
        case list():
            for inner in value:
                yield from _rendered(inner, path)
        case None | "":
            return
        case _:
            yield f"{path}: {_scalar(value)}" if path else _scalar(value)


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value)
