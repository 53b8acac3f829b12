"""What an index for searches by embedding is, what it is wanted to be, and the statement that makes it."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any, ClassVar

from psycopg.sql import SQL, Composed, Identifier

from database.errors import InvalidInputError
from database.index_build import SPARE, better_built, graph_bytes
from database.index_variants import DEFAULT_LISTS, OPERATOR_CLASSES, Filter, filters_of, meaning

M, EF_CONSTRUCTION = 8, 48
"""As `synapse_create_documents_table` has them."""


@dataclass(frozen=True, kw_only=True)
class Definition:
    """
    An index by distance, or what is known of another one.

    :param method: `hnsw`, `ivfflat`, or that of another index.
    :param kind: What its operators compare: `vector` or `halfvec`.
    :param ending: Of its operator class: `cosine_ops`, `ip_ops` or `l2_ops`.
    :param cast: Whether the embeddings are cast to it.
    :param options: `m` and `ef_construction`, or `lists`.
    :param filters: Of a partial one.
    """

    method: str
    kind: str
    ending: str
    cast: bool
    options: dict[str, int]
    filters: Filter | None

    @classmethod
    def read(cls, row: dict[str, Any]) -> Definition:
        """From the catalog."""
        kind, _, ending = row["operators"].partition("_")
        return cls(
            method=row["method"],
            kind=kind,
            ending=ending,
            cast="::" in row["indexed"],
            options=row["options"] or {},
            filters=filters_of(row["comment"]),
        )

    @property
    def own_setting(self) -> str | None:
        """What is set back after a build that was made better; `None` where nothing is."""
        _, own = better_built(f" {self._tail(built=False)}")
        return None if own is None else f"ef_construction = {own}"

    def is_found_like(self, other: Definition) -> bool:
        """Whether searches that name the other one go along this one just as well."""
        return (self.method, self.kind, self.ending, self.cast) == (other.method, other.kind, other.ending, other.cast)

    def memory(self, rows: int, *, dimension: int) -> int:
        """Bytes that its build takes."""
        if self.method == "hnsw":
            return graph_bytes(rows=rows, dimension=dimension, vector_type=self.kind, definition=self._tail(built=True))
        # The sample of k-means, 50 rows for each list, and the lists' centres with what k-means keeps of them.
        vector = dimension * (4 if self.kind == "vector" else 2) + 32
        lists = self.options.get("lists", DEFAULT_LISTS)
        return int((min(rows, 50 * lists) + 4 * lists) * vector + 4 * lists * lists) + SPARE

    def disk(self, rows: int, *, dimension: int) -> int:
        """Bytes that it takes on the disk, at most."""
        if self.method == "hnsw":
            return self.memory(rows, dimension=dimension)
        return int(rows * (dimension * (4 if self.kind == "vector" else 2) + 32) * 1.3)

    def creation(
        self,
        name: str,
        table: Identifier,
        *,
        dimension: int,
        predicate: str | None,
        only: bool = False,
        built: bool = True,
    ) -> Composed:
        """
        The statement that makes it.

        :param name: Its name; its schema is the table's.
        :param only: For a partitioned table without its parts, which is not done concurrently.
        :param built: With more candidates than it keeps.
        """
        head = SQL("CREATE INDEX {} ON ONLY {} " if only else "CREATE INDEX CONCURRENTLY {} ON {} ")
        column = f"((embedding::halfvec({dimension}))" if self.cast else "(embedding"
        tail = self._tail(built=built).replace("(embedding", column, 1)
        where = f" WHERE {predicate}" if predicate else ""
        return Composed([head.format(Identifier(name), table), SQL(tail + where)])  # type: ignore[arg-type]

    def _tail(self, *, built: bool) -> str:
        options = ", ".join(f"{key} = {value}" for key, value in self.options.items())
        tail = f" USING {self.method} (embedding {self.kind}_{self.ending}) WITH ({options})"
        return (better_built(tail)[0] if built else tail).lstrip()


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """
    What an index is to be; what is `None` stays as it is, or is what a new table has.

    :param method: `hnsw` or `ivfflat`.
    :param half: Whether embeddings are in half precision in it.
    :param m: Of HNSW, 2 to 100.
    :param ef_construction: Of HNSW, 4 to 1000, at least twice `m`.
    :param lists: Of IVFFlat, 1 to 32,768. By pgvector's advice a thousandth of the rows, above a million their square root.
    :param filters: Only documents that pass, in an index beside the one of all documents.
    """

    method: str | None = None
    half: bool | None = None
    m: int | None = None
    ef_construction: int | None = None
    lists: int | None = None
    filters: Filter | None = None

    METHODS: ClassVar = ("hnsw", "ivfflat")

    def name_for(self, table_name: str) -> str:
        """The index's name: each filter has an index of its own."""
        if self.filters is None:
            return f"{table_name}_hnsw_index"
        return f"{table_name}_where_{hashlib.sha256(meaning(self.filters).encode()).hexdigest()[:8]}"

    def over(self, old: Definition | None, *, vector_type: str, dimension: int, rows: int) -> Definition:
        """
        The definition of the new index.

        :param old: What is there.
        :param vector_type: Of the table.
        :param rows: That it will hold, or each of its parts.
        :raises InvalidInputError: If these do not go together.
        """
        if self.half and vector_type == "halfvec":
            raise InvalidInputError("The table's embeddings are in half precision already; --half changes nothing.")
        method = self.method or (old.method if old else "hnsw")
        if method not in self.METHODS:
            raise InvalidInputError(f"An index is of type {' or '.join(self.METHODS)}, but {method} was asked for.")
        cast = (old.cast if old else False) if self.half is None else self.half
        if not cast and vector_type == "vector" and dimension > 2000:
            raise InvalidInputError(f"An index takes 2,000 dimensions of single precision, but there are {dimension}.")
        if cast and vector_type == "vector" and dimension > 4000:
            raise InvalidInputError(f"An index takes 4,000 dimensions of half precision, but there are {dimension}.")
        kept = old.options if old and old.method == method else {}
        return Definition(
            method=method,
            kind="halfvec" if cast else vector_type,
            ending=old.ending if old else OPERATOR_CLASSES["cosine_similarity"],
            cast=cast,
            options=self._lists(kept, rows) if method == "ivfflat" else self._graph(kept),
            filters=self.filters,
        )

    def _graph(self, kept: dict[str, int]) -> dict[str, int]:
        if self.lists is not None:
            raise InvalidInputError("An HNSW index has no lists.", hint="Use --type ivfflat, or leave --lists out.")
        m = self.m or kept.get("m", M)
        ef_construction = self.ef_construction or max(kept.get("ef_construction", EF_CONSTRUCTION), 2 * m)
        if ef_construction < 2 * m:
            raise InvalidInputError(f"ef_construction must be at least twice m, {2 * m}, but is {ef_construction}.")
        return {"m": m, "ef_construction": ef_construction}

    def _lists(self, kept: dict[str, int], rows: int) -> dict[str, int]:
        if self.m is not None or self.ef_construction is not None:
            raise InvalidInputError("An IVFFlat index has neither m nor ef_construction.", hint="Use --lists.")
        return {"lists": self.lists or advised_lists(rows)}


def advised_lists(rows: int) -> int:
    """How many lists pgvector advises: a thousandth of the rows, above a million the square root; here at least 10."""
    return max(rows // 1000 if rows <= 1_000_000 else round(math.sqrt(rows)), 10)
