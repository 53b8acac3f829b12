"""
Test collections in BEIR's layout: documents, questions, and which documents answer which question.

    DIR/corpus.jsonl        {"_id": "d1", "title": "…", "text": "…"}
    DIR/queries.jsonl       {"_id": "q1", "text": "…"}
    DIR/qrels/NAME.tsv      query-id <tab> corpus-id <tab> score; above 0 means relevant, larger means more so

Each may be compressed (.gz). Thakur et al., BEIR, NeurIPS 2021, describe the layout.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from database.errors import InvalidInputError

Qrels = dict[str, dict[str, int]]

_SHOWN = 3
"""Ids that a note names."""


@dataclass(frozen=True, slots=True)
class Text:
    """A document of a collection."""

    id: str
    title: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Collection:
    """
    Documents with judged questions.

    :param name: Name of its folder, with the judgements': `scifact/test`.
    :param texts: The documents, in the file's order.
    :param queries: The judged questions by id.
    :param qrels: By question, then by document: above 0 is relevant. Each question has a relevant document.
    :param notes: What is odd about the files, a sentence each.
    """

    name: str
    texts: list[Text]
    queries: dict[str, str]
    qrels: Qrels
    notes: list[str] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """A hash of the documents, whose embeddings serve as long as it stays the same."""
        sha256 = hashlib.sha256()
        for text in self.texts:
            sha256.update(json.dumps([text.id, text.title, text.text]).encode())
        return sha256.hexdigest()[:16]


def read_collection(folder: Path, *, qrels: str | None = None) -> Collection:
    """
    Read a collection.

    :param folder: Where its files are.
    :param qrels: Which judgements, by their file's name without the suffix; `None` means `test`, or the only ones.
    :raises InvalidInputError: If a file is missing or malformed, or if no question is judged.
    """
    notes: list[str] = []
    chosen = _chosen_qrels(folder, qrels)
    texts = _read_texts(_found(folder, "corpus.jsonl"), notes)
    queries = {key: str(row.get("text") or "") for key, row in _rows(_found(folder, "queries.jsonl"), notes)}
    judged = _judged(_read_qrels(chosen), {text.id for text in texts}, queries, where=chosen, notes=notes)
    return Collection(
        name=f"{folder.resolve().name}/{chosen.name.split('.')[0]}",
        texts=texts,
        queries={query: _storable(queries[query]) for query in judged},
        qrels=judged,
        notes=notes,
    )


def _chosen_qrels(folder: Path, name: str | None) -> Path:
    if not folder.is_dir():
        raise InvalidInputError(f"A folder with corpus.jsonl, queries.jsonl and qrels/ was expected at {folder}.")
    known = {path.name.split(".tsv")[0]: path for path in sorted((folder / "qrels").glob("*.tsv*"))}
    if name is None and len(known) == 1:
        return next(iter(known.values()))
    if (name or "test") not in known:
        raise InvalidInputError(
            f"Judgements were expected in {folder / 'qrels' / (name or 'test')}.tsv, but there are none.",
            hint=f"Choose with --qrels: {', '.join(known)}." if known else "",
        )
    return known[name or "test"]


def _found(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise InvalidInputError(f"{folder / name} was expected, but it is not there.")


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rt", encoding="utf-8") as file:
                yield file
        else:
            with path.open(encoding="utf-8") as file:
                yield file
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError) as exc:
        raise InvalidInputError(f"{path} was expected in UTF-8, but {exc}.") from None


def _rows(path: Path, notes: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file of JSON lines by their `_id`; of several with one id, the first."""
    seen: set[str] = set()
    twice: list[str] = []
    with _opened(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            key, row = _row(line, where=f"{path}, line {number}")
            if key in seen:
                twice.append(key)
                continue
            seen.add(key)
            yield key, row
    if twice:
        notes.append(f"{_named(f'Ids that {path.name} has more than once', twice)}; the first counts.")


def _row(line: str, *, where: str) -> tuple[str, dict[str, Any]]:
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as exc:
        raise InvalidInputError(f"{where}: one JSON object was expected, but {exc}.") from None
    if not isinstance(row, dict) or row.get("_id") in (None, ""):
        raise InvalidInputError(f"{where}: an object with _id and text was expected, but is {line.strip()[:60]}")
    return _storable(str(row["_id"])), row


def _read_texts(path: Path, notes: list[str]) -> list[Text]:
    found = [
        Text(key, _storable(str(row.get("title") or "")), _storable(str(row.get("text") or "")))
        for key, row in _rows(path, notes)
    ]
    if not found:
        raise InvalidInputError(f"Documents were expected in {path}, but it is empty.")
    return found


def _storable(text: str) -> str:
    """Without what neither PostgreSQL nor trec_eval can hold: NUL, and half of a surrogate pair."""
    return text.replace("\x00", " ").encode(errors="replace").decode()


def _read_qrels(path: Path) -> Qrels:
    found: Qrels = {}
    with _opened(path) as file:
        for number, line in enumerate(file, start=1):
            cells = line.rstrip("\r\n").split("\t")
            if cells == [""] or (number == 1 and not _is_number(cells[-1])):
                continue
            if len(cells) != 3 or not _is_number(cells[2]):
                raise InvalidInputError(
                    f"{path}, line {number}: query, document and a whole number with tabs between them were expected, "
                    f"but there is {line.strip()[:60]!r}."
                )
            found.setdefault(_storable(cells[0]), {})[_storable(cells[1])] = int(cells[2])
    return found


def _is_number(text: str) -> bool:
    try:
        int(text)
    except ValueError:
        return False
    return True


def _judged(qrels: Qrels, documents: set[str], queries: dict[str, str], *, where: Path, notes: list[str]) -> Qrels:
    """The questions that can be asked and answered, with all their judgements."""
    unknown = sorted({document for judged in qrels.values() for document in judged} - documents)
    if unknown:
        notes.append(f"{_named('Judged documents that are not in the corpus', unknown)}; they count as not found.")
    missing = [query for query in qrels if query not in queries]
    if missing:
        notes.append(f"{_named('Judged queries that are not in queries.jsonl', missing)}; they are left out.")
    hopeless = [query for query, judged in qrels.items() if max(judged.values()) <= 0]
    if hopeless:
        notes.append(f"{_named('Queries without a relevant document', hopeless)}; they are left out.")
    left = {query: judged for query, judged in qrels.items() if query not in {*missing, *hopeless}}
    if not left:
        raise InvalidInputError(f"Queries with relevant documents were expected in {where}, but it has none.")
    return left


def _named(what: str, ids: list[str]) -> str:
    more = " …" if len(ids) > _SHOWN else ""
    return f"{what}, {len(ids)}: {', '.join(ids[:_SHOWN])}{more}"
