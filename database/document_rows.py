"""
Documents to table rows and back, and the one statement that writes rows.

Nothing is changed silently on the way: what PostgreSQL cannot hold is refused with the document's id. Haystack is
imported only where rows become documents, so that the ledger stays light.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from psycopg.sql import SQL, Composed, Identifier

from database.errors import DatabaseError, InvalidInputError
from database.sql import statements

if TYPE_CHECKING:
    from haystack import Document
    from pgvector import Vector
    from psycopg import AsyncConnection, Connection

Policy = Literal["fail", "skip", "overwrite"]
Row = dict[str, Any]
"""A row by its columns; the embedding as pgvector's `Vector`, or as the bytes that pgvector sends of one; JSON as text."""

_SQL = statements(Path(__file__).with_suffix(".sql"))
MAX_ID_LENGTH = 128
MAX_MIME_TYPE_LENGTH = 255
BATCH = 1000
"""Rows per statement: the gain beyond is nil, and a message stays far below PostgreSQL's limit of 1 GB."""

STAGED_FROM = 1000
"""Documents from which on they go through a staging table; fewer are sent sooner than one is made."""

_EXACT_INTEGERS = 2.0**53
_COLUMNS = {
    "id": "text",
    "embedding": "vector",
    "content": "text",
    "blob_data": "bytea",
    "blob_meta": "text",
    "blob_mime_type": "text",
    "meta": "text",
}
"""What a row has, in the order of the staging table, and the types in which it is sent."""


class DuplicateRowsError(DatabaseError):
    """
    Documents that must be new are not.

    :param table: Name of the table.
    :param ids: The ids that are taken, or stand twice in what is to be written.
    """

    code = "duplicate_document"

    def __init__(self, table: str, ids: Sequence[str]) -> None:
        more = f" and {len(ids) - 3} more" if len(ids) > 3 else ""
        super().__init__(
            f"New documents were expected for table {table}, but it has {', '.join(ids[:3])}{more} already.",
            hint="Write with DuplicatePolicy.OVERWRITE or SKIP, or delete them first.",
        )


def rows_from_documents(documents: Iterable[Document], *, table: str, dimension: int, vector_type: str) -> list[Row]:
    """
    Turn documents into rows.

    :param documents: Their embeddings may be lists or arrays.
    :param table: Name of the table, for messages.
    :param dimension: Dimension of its embeddings.
    :param vector_type: `vector` or `halfvec`.
    :returns: A row per document, in their order.
    :raises InvalidInputError: If PostgreSQL cannot hold a document as it is; the message names it.
    """
    return [_row(document, table=table, dimension=dimension, vector_type=vector_type) for document in documents]


def documents_from_rows(rows: Iterable[Mapping[str, Any]]) -> list[Document]:
    """
    Turn rows into documents; columns that were not selected stay empty.

    :param rows: As read from a documents table, `score` among them where there is one.
    """
    from haystack import Document
    from haystack.dataclasses import ByteStream

    documents = []
    for row in rows:
        blob, embedding, score = None, row.get("embedding"), row.get("score")
        if row.get("blob_data") is not None:
            blob = ByteStream(data=row["blob_data"], meta=row["blob_meta"] or {}, mime_type=row["blob_mime_type"])
        documents.append(
            Document(
                id=row["id"],
                content=row["content"],
                blob=blob,
                meta=row["meta"] or {},
                score=None if score is None else float(score),
                embedding=None if embedding is None else embedding.to_list(),
            )
        )
    return documents


def write_rows(
    connection: Connection[Any],
    table: str | Identifier,
    documents: Sequence[Document],
    *,
    dimension: int,
    vector_type: str = "vector",
    policy: Policy = "overwrite",
) -> int:
    """
    Write documents in the connection's transaction, a batch at a time.

    :param connection: With pgvector's types registered. Whatever is raised, roll it back.
    :param table: Where to.
    :param documents: Of several with one id, `skip` writes the first and `overwrite` the last.
    :param dimension: Dimension of the table's embeddings.
    :param vector_type: `vector` or `halfvec`.
    :param policy: What to do with ids that exist.
    :returns: How many rows were inserted or overwritten.
    :raises InvalidInputError: If PostgreSQL cannot hold a document as it is; the message names it.
    :raises DuplicateRowsError: If the policy is `fail` and an id exists, or stands twice.
    """
    written: set[str] = set()
    staged = len(documents) >= STAGED_FROM
    for batch in _batches(documents, policy=policy):
        rows = rows_from_documents(batch, table=plain_name(table), dimension=dimension, vector_type=vector_type)
        written.update(merge_rows(connection, table, rows, policy=policy, staged=staged))
    return _checked(table, documents, written, policy=policy)


async def write_rows_async(
    connection: AsyncConnection[Any],
    table: str | Identifier,
    documents: Sequence[Document],
    *,
    dimension: int,
    vector_type: str = "vector",
    policy: Policy = "overwrite",
) -> int:
    """`write_rows`, for asyncio."""
    written: set[str] = set()
    staged = len(documents) >= STAGED_FROM
    if staged:
        staged = await (await connection.execute(_SQL["may_stage"])).fetchone() is not None
    for batch in _batches(documents, policy=policy):
        rows = rows_from_documents(batch, table=plain_name(table), dimension=dimension, vector_type=vector_type)
        if staged:
            await connection.execute(_SQL["create_staging"])
            async with connection.cursor() as cursor, cursor.copy(_SQL["copy_staging"]) as copy:
                copy.set_types(list(_COLUMNS.values()))
                for row in rows:
                    await copy.write_row(tuple(row.values()))
        cursor = await connection.execute(*_merge(table, rows, policy=policy, staged=staged), binary=True)
        written.update(row["id"] for row in await cursor.fetchall())
    return _checked(table, documents, written, policy=policy)


def merge_rows(
    connection: Connection[Any], table: str | Identifier, rows: Sequence[Row], *, policy: Policy, staged: bool = True
) -> list[str]:
    """
    Insert rows, or overwrite what has their ids, by one statement.

    :param connection: With pgvector's types registered, in a transaction.
    :param table: Where to.
    :param rows: In the order of ids, each id once.
    :param policy: What to do with ids that exist; `fail` leaves them as `skip` does, and the caller looks at what came back.
    :param staged: Whether they go through a staging table, where one may be made.
    :returns: The ids that were inserted or overwritten.
    """
    from pgvector import Vector

    rows = [
        {**row, "embedding": Vector.from_binary(row["embedding"])} if isinstance(row["embedding"], bytes) else row
        for row in rows
    ]
    staged = staged and connection.execute(_SQL["may_stage"]).fetchone() is not None
    if staged:
        connection.execute(_SQL["create_staging"])
        with connection.cursor() as cursor, cursor.copy(_SQL["copy_staging"]) as copy:
            copy.set_types(list(_COLUMNS.values()))
            for row in rows:
                copy.write_row(tuple(row.values()))
    found = connection.execute(*_merge(table, rows, policy=policy, staged=staged), binary=True).fetchall()
    return [row["id"] for row in found]


def copy_rows(
    connection: Connection[Any], table: str | Identifier, rows: Sequence[Row], *, vector_type: str = "vector"
) -> int:
    """
    Write new rows straight into the table; for bulk loads, as one id that exists fails them all.

    :param connection: With pgvector's types registered.
    :param table: Where to.
    :param rows: As `rows_from_documents` makes them.
    :returns: How many.
    :raises psycopg.errors.UniqueViolation: If an id exists, or stands twice.
    """
    name = Identifier(table) if isinstance(table, str) else table
    with connection.cursor() as cursor, cursor.copy(SQL(_SQL["copy_rows"]).format(table=name)) as copy:
        copy.set_types(
            ["text", "bytea", "text", "bytea", "bytea", "text", "bytea"]
        )  # vectors and jsonb as they are sent
        for row in rows:
            copy.write_row(
                (
                    row["id"],
                    _sent(row["embedding"], vector_type),
                    row["content"],
                    row["blob_data"],
                    _sent_json(row["blob_meta"]),
                    row["blob_mime_type"],
                    _sent_json(row["meta"]),
                )
            )
    return len(rows)


def _sent(embedding: Vector | bytes | None, vector_type: str) -> bytes | None:
    from pgvector import HalfVector

    if embedding is None or isinstance(embedding, bytes):
        return embedding
    found: bytes = (HalfVector(embedding.to_numpy()) if vector_type == "halfvec" else embedding).to_binary()
    return found


def _sent_json(text: str | None) -> bytes | None:
    return None if text is None else b"\x01" + text.encode()  # behind jsonb's version


def json_text(value: Any, *, where: str) -> str:
    """
    Write a value as the JSON text that jsonb gives back unchanged.

    jsonb keeps numbers as decimals: a large float is written out digit by digit, with a `.0` that makes it a float again.

    :param value: What `json` can hold, with text as the only kind of key.
    :param where: What the value is, for messages.
    :raises InvalidInputError: For NaN, infinity, U+0000, lone surrogates, and whatever is not JSON.
    """
    try:
        return _json(value, where)
    except RecursionError:
        raise InvalidInputError(f"{where} must be nested less deeply.") from None


def checked_text(text: str, *, where: str) -> str:
    """
    Return text that PostgreSQL can hold as it is.

    :raises InvalidInputError: If it holds U+0000 or a lone surrogate.
    """
    if "\x00" in text:
        raise InvalidInputError(
            f"{where} must be text that PostgreSQL can hold, but has U+0000 at position {text.index(chr(0))}.",
            hint="Remove the character before writing.",
        )
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as exc:
            raise InvalidInputError(
                f"{where} must be valid Unicode, but has a lone surrogate at position {exc.start}.",
                hint="Decode the text with the right encoding, or with errors='replace'.",
            ) from None
    return text


def vector(values: Any, *, vector_type: str, where: str) -> Vector:
    """
    Turn a list or an array into what pgvector's types are sent as.

    :param values: Numbers.
    :param vector_type: `vector` or `halfvec`, whose range the numbers must fit.
    :param where: What they are, for messages.
    :raises InvalidInputError: If they are not numbers, or not finite in that type.
    """
    import numpy as np
    from pgvector import Vector

    try:
        with np.errstate(over="ignore"):
            array = np.asarray(values).astype(np.float16 if vector_type == "halfvec" else np.float32)
    except (TypeError, ValueError):
        array = np.empty((0, 0))
    if array.ndim != 1:
        raise InvalidInputError(f"{where} must be a list of numbers, but is {shown(values)}.")
    if not np.isfinite(array).all():
        culprit = values[int(np.argmin(np.isfinite(array)))]
        raise InvalidInputError(f"{where} must hold numbers that are finite as {vector_type}, but has {culprit}.")
    return Vector(array.astype(np.float32))


def plain_name(table: str | Identifier) -> str:
    """A table's name as messages show it."""
    return table if isinstance(table, str) else table.as_string().replace('"', "").removeprefix("public.")


def shown(value: object) -> str:
    """A value as messages show it: its type and the beginning of it."""
    try:
        text = repr(value) if isinstance(value, str) else f"{type(value).__name__} {value!r}"
    except ValueError:  # Python does not write out an integer of more than 4300 digits
        text = type(value).__name__
    return text if len(text) <= 60 else text[:59] + "…"


def _row(document: Document, *, table: str, dimension: int, vector_type: str) -> Row:
    name, blob = f"document {shown(document.id)}", document.blob
    checked_text(document.id, where=f"The id of {name}")
    _check_length(document.id, MAX_ID_LENGTH, what="A document's id", name=name)
    if blob is not None and blob.mime_type is not None:
        checked_text(blob.mime_type, where=f"The MIME type of {name}")
        _check_length(blob.mime_type, MAX_MIME_TYPE_LENGTH, what="A MIME type", name=name)
    if document.content is not None:
        checked_text(document.content, where=f"The content of {name}")
    embedding = None
    if document.embedding is not None:
        if len(document.embedding) != dimension:
            raise InvalidInputError(
                f"Table {table} holds {vector_type}({dimension}), but {name} has an embedding of {len(document.embedding)}.",
                hint="Embed with the table's model, or write to the table of yours.",
            )
        embedding = vector(document.embedding, vector_type=vector_type, where=f"The embedding of {name}")
    return {
        "id": document.id,
        "embedding": embedding,
        "content": document.content,
        "blob_data": blob.data if blob else None,
        "blob_meta": json_text(blob.meta, where=f"blob.meta of {name}") if blob and blob.meta else None,
        "blob_mime_type": blob.mime_type if blob else None,
        "meta": json_text(document.meta, where=f"meta of {name}"),
    }


def _check_length(text: str, most: int, *, what: str, name: str) -> None:
    if len(text) > most:
        raise InvalidInputError(
            f"{what} must have at most {most} characters, but that of {name} has {len(text)}.",
            hint="Use a hash of it, and keep the long text in meta.",
        )


def _batches(documents: Sequence[Document], *, policy: Policy) -> Iterator[list[Document]]:
    """In the order of ids, so that two writers of the same ids cannot deadlock."""
    chosen = {document.id: document for document in (documents if policy == "overwrite" else reversed(documents))}
    ordered = sorted(chosen.values(), key=lambda document: document.id.encode(errors="surrogatepass"))
    for start in range(0, len(ordered), BATCH):
        yield ordered[start : start + BATCH]


def _merge(
    table: str | Identifier, rows: Sequence[Row], *, policy: Policy, staged: bool
) -> tuple[Composed, dict[str, list[Any]]]:
    """The statement that inserts rows, from the staging table or out of its parameters."""
    source = SQL(_SQL["staged_rows" if staged else "given_rows"])
    name = Identifier(table) if isinstance(table, str) else table
    statement = SQL(_SQL[f"insert_or_{policy}"]).format(table=name, rows=source)
    return statement, {} if staged else {column: [row[column] for row in rows] for column in _COLUMNS}


def _checked(table: str | Identifier, documents: Sequence[Document], written: set[str], *, policy: Policy) -> int:
    if policy == "fail" and len(written) < len(documents):
        ids = Counter(document.id for document in documents)
        repeated = [id_ for id_, count in ids.items() if count > 1]
        raise DuplicateRowsError(plain_name(table), [*(id_ for id_ in ids if id_ not in written), *repeated])
    return len(written)


def _json(value: Any, where: str) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        return json.dumps(checked_text(value, where=where))
    if isinstance(value, int):
        try:
            return int.__repr__(value)
        except ValueError:
            raise InvalidInputError(f"{where} must be a number of at most 4300 digits, but has more.") from None
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidInputError(
                f"{where} must be a finite number, but is {value}.", hint="JSON has no such number."
            )
        return f"{value:.1f}" if abs(value) >= _EXACT_INTEGERS else float.__repr__(value)
    if isinstance(value, dict):
        return (
            "{" + ", ".join(f"{_key(key, where)}: {_json(item, f'{where}.{key}')}" for key, item in value.items()) + "}"
        )
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_json(item, f"{where}[{index}]") for index, item in enumerate(value)) + "]"
    raise InvalidInputError(
        f"{where} must be text, a number, true, false, null, a list or a mapping, but is {shown(value)}.",
        hint="Write dates as ISO 8601 text, anything else as text or numbers.",
    )


def _key(key: object, where: str) -> str:
    if not isinstance(key, str):
        raise InvalidInputError(f"{where} must have text as its keys, but has {shown(key)}.")
    return json.dumps(checked_text(key, where=f"A key of {where}"))
