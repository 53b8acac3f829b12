"""What is wanted of a bytea column, and how a run over it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from database.errors import InvalidInputError
from migration.bytea_index import Index
from migration.bytea_values import KINDS
from migration.receipt import Receipt

POLICIES = ("stop", "keep", "reject")
MOST_DIMENSIONS = 16_000
"""What pgvector's type vector takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """
    What is wanted.

    :param table: As SQL writes it.
    :param column: The bytea column, exactly.
    :param into: The vector column; by default the bytea column's name and `_vector`.
    :param dimension: Numbers per vector; `None` takes what most rows have.
    :param big_endian: Byte order; `None` means little-endian, and that a column which looks otherwise is refused.
    :param policies: By kind of row that does not fit: `stop`, `keep` or `reject`; `stop` where none is given.
    :param batch: Rows that are read at once, at least 1.
    :param pause: Seconds of rest after each batch.
    :param triggers: Whether the backfill fires the table's own triggers, `fire` or `skip`; `None` refuses if there are any.
    :param index: `None` builds none.
    :param memory: Bytes for the build of the index; `None` leaves it to machine and server.
    :param queries: Searches that are compared.
    :param effort: `hnsw.ef_search` or `ivfflat.probes` of these searches; `None` takes what `Index.effort` says.
    :param least_overlap: What they must find of what is found in memory, 0 to 1.
    :param finish: Whether to make it final if all checks pass.
    :param constraint: Whether the final step makes PostgreSQL refuse rows with bytes and without a vector.
    :param keep_trigger: Whether the final step keeps the trigger.
    """

    table: str
    column: str
    into: str | None = None
    dimension: int | None = None
    big_endian: bool | None = None
    policies: Mapping[str, str] = field(default_factory=dict)
    batch: int = 1000
    pause: float = 0.0
    triggers: Literal["fire", "skip"] | None = None
    index: Index | None = field(default_factory=Index)
    memory: int | None = None
    queries: int = 50
    effort: int | None = None
    least_overlap: float = 0.9
    finish: bool = False
    constraint: bool = True
    keep_trigger: bool = True

    def __post_init__(self) -> None:
        for kind, policy in self.policies.items():
            if kind not in KINDS:
                raise InvalidInputError(f"A kind must be one of {', '.join(KINDS)}, but is {kind!r}.")
            if policy not in POLICIES:
                raise InvalidInputError(f"The policy for {kind} must be stop, keep or reject, but is {policy!r}.")
        if self.dimension is not None and not 1 <= self.dimension <= MOST_DIMENSIONS:
            raise InvalidInputError(
                f"The dimension must be between 1 and {MOST_DIMENSIONS:,}, but is {self.dimension}."
            )
        if self.batch < 1 or self.pause < 0 or self.queries < 0 or not 0 <= self.least_overlap <= 1:
            raise InvalidInputError(
                "A batch of at least 1 row, a pause of at least 0 s, at least 0 queries and an overlap between 0 and 1 were "
                f"expected, but found {self.batch}, {self.pause}, {self.queries} and {self.least_overlap}."
            )

    def policy(self, kind: str) -> str:
        """What is done about rows of a kind that do not fit."""
        return self.policies.get(kind, "stop")

    @property
    def keep_zero(self) -> bool:
        """Whether vectors of nothing but zeros are taken."""
        return self.policy("zero_vector") == "keep"


@dataclass(kw_only=True)
class Outcome:
    """
    How a run ended.

    :param receipt: Its books; its problems are why nothing was done, or not everything, a sentence each.
    :param filled: Rows that this run has written.
    :param slowest_ms: The longest of the statements that wrote them, in milliseconds: how long rows were locked.
    :param finished: Whether it is final.
    """

    receipt: Receipt
    filled: int = 0
    slowest_ms: float = 0.0
    finished: bool = False

    @property
    def refusals(self) -> list[str]:
        """Why nothing was done, or not everything."""
        return self.receipt.problems
