"""Rows as PostgreSQL gets them, and what became of every value on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal, TypeAlias, get_args

from database.errors import InvalidInputError
from migration.relational.encodings import WRITTEN_OUT, UnfitError, as_text
from migration.relational.plan import PlannedColumn, TablePlan
from migration.relational.survey import is_writable, written
from migration.relational.tables import Row, Value

Policy = Literal["stop", "keep", "reject"]
Policies: TypeAlias = "dict[str, Policy]"

KINDS: dict[str, str] = {
    "ambiguous": "a number or bytes beside texts that look like its written form: written out, it can no longer be told from them",
    "invalid_utf8": "a text whose bytes are no UTF-8; kept with U+FFFD in their place",
    "nul": "a text with U+0000; kept with U+FFFD in its place",
    "orphan": "a row that refers to a row that is not there; kept under a foreign key that does not look back",
    "widened": "a value that the declared type cannot hold; kept by a wider type of the whole column, without loss",
}
DEFAULTS: Policies = {
    "ambiguous": "stop",
    "invalid_utf8": "stop",
    "nul": "stop",
    "orphan": "stop",
    "widened": "keep",
}

_NATURAL = {int: ("bigint", "numeric"), float: ("double",), str: ("text", "varchar", "json"), bytes: ("bytea",)}


def chosen_policies(given: Mapping[str, str]) -> Policies:
    """
    A policy for every kind: as given, otherwise the usual one.

    :raises InvalidInputError: If a kind or a policy does not exist.
    """
    for kind, policy in given.items():
        if kind not in KINDS:
            raise InvalidInputError(f"A kind of change was expected, one of {', '.join(KINDS)}, but found {kind!r}.")
        if policy not in get_args(Policy):
            raise InvalidInputError(f"The policy for {kind} must be stop, keep or reject, but is {policy!r}.")
    return {kind: given.get(kind, usual) for kind, usual in DEFAULTS.items()}  # type: ignore[misc]


@dataclass(frozen=True)
class Loss:
    """
    What became of one value.

    :param place: Of its row in the batch.
    :param kind: One of `KINDS`.
    :param lossless: Whether what is in the table still leads to the original.
    """

    place: int
    kind: str
    column: str
    original: Value
    lossless: bool = False


@dataclass
class Converted:
    """
    A batch after conversion.

    :param rows: As PostgreSQL gets them; `None` where a row is rejected or the run stops for it.
    :param losses: Row by row.
    """

    rows: list[tuple[Any, ...] | None]
    losses: list[Loss] = field(default_factory=list)


def convert(plan: TablePlan, batch: Sequence[Row], policies: Policies, *, gone: set[int]) -> Converted:
    """
    Convert a batch.

    :param gone: Positions of rows that are rejected for another reason.
    """
    source_columns = list(zip(*batch, strict=True))
    losses: list[Loss] = []
    columns = [_column(column, source_columns[column.place], losses) for column in plan.columns]
    rows: list[tuple[Any, ...] | None] = list(zip(*columns, strict=True))
    for loss in losses:
        if policies[loss.kind] != "keep":
            rows[loss.place] = None
    if gone:
        for place, row in enumerate(batch):
            if row[0] in gone:
                rows[place] = None
    losses.sort(key=lambda loss: loss.place)
    return Converted(rows, losses)


def _column(planned: PlannedColumn, values: Sequence[Value], losses: list[Loss]) -> Sequence[Any]:
    encoding = planned.encoding
    plain = is_writable(values)
    if plain and planned.proven and not planned.declared:
        if encoding.changes_nothing or encoding.encode is None:
            return values
        encode = encoding.encode
        return [None if value is None else encode(value) for value in values]
    made = list[Any]()
    for place, value in enumerate(values):
        result, kind, lossless = _value(planned, value, plain=plain)
        if kind is not None:
            losses.append(Loss(place, kind, planned.name, value, lossless))
        made.append(result)
    return made


def _value(planned: PlannedColumn, value: Value, *, plain: bool) -> tuple[Any, str | None, bool]:
    """What is written, the kind of its change if it has one, and whether the change loses nothing."""
    if value is None:
        return None, None, True
    kind = None
    if not plain and isinstance(value, str) and not is_writable((value,)):
        kind = "nul" if "\0" in value else "invalid_utf8"
        value = written(value)
    if planned.encoding is WRITTEN_OUT:
        return as_text(value), kind or (None if isinstance(value, str) else "ambiguous"), False
    try:
        made = planned.encoding.encoded(value)
    except UnfitError:
        return None, kind or "widened", False
    if kind is None and planned.declared and not _is_as_declared(planned, value):
        return made, "widened", True
    return made, kind, False


def _is_as_declared(planned: PlannedColumn, value: Value) -> bool:
    """Whether a value of a widened column is still of its own type there, and would not have been the reason."""
    natural = planned.encoding.sql_type.startswith(_NATURAL[type(value)])
    return natural and any(encoding.fits(value) for encoding in planned.declared)


def row_hash(row: tuple[Any, ...]) -> int:
    """128 bits over a row as PostgreSQL holds it; sums of them do not depend on the order of rows."""
    return int.from_bytes(blake2b(repr(row).encode(), digest_size=16).digest(), "big")


def checksum(total: int) -> str:
    """A sum of hashes as 32 hexadecimal digits."""
    return f"{total % 2**128:032x}"
