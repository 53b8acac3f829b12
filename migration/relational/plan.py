"""What a table becomes: names, types, keys; decided once, before anything is written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from migration.relational.encodings import BIGINT, WRITTEN_OUT, Encoding, UnfitError, declared
from migration.relational.survey import ColumnSurvey, is_writable
from migration.relational.tables import Column, Table

LONGEST_NAME = 63
STATE_TABLE = "_synapse_migration"
_SYSTEM_COLUMNS = {"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"}

_UTC = "(now() AT TIME ZONE 'UTC')"
_MOMENTS = {
    ("timestamp", "timestamp with time zone"): "now()",
    ("timestamp", "timestamp without time zone"): _UTC,
    ("timestamp", "text"): f"to_char({_UTC}, 'YYYY-MM-DD HH24:MI:SS')",
    ("date", "date"): f"{_UTC}::date",
    ("date", "text"): f"to_char({_UTC}, 'YYYY-MM-DD')",
    ("time", "time without time zone"): f"{_UTC}::time(0)",
    ("time", "text"): f"to_char({_UTC}, 'HH24:MI:SS')",
    ("unix", "bigint"): "extract(epoch FROM now())::bigint",
    ("unix", "timestamp with time zone"): "now()",
}
"""PostgreSQL's words for the time of an insertion, by what the source writes and the column's type there."""


@dataclass(frozen=True, kw_only=True)
class PlannedColumn:
    """
    A column of the target.

    :param place: Where its values stand in a `Row`.
    :param declared: The encodings of its declared type, where it was widened because none of them keeps everything.
    :param proven: Whether the encoding is known to keep every value.
    :param default: A literal for psycopg, if `moment` is `None`.
    :param moment: PostgreSQL's expression for the time of an insertion.
    :param numbered: Whether PostgreSQL counts on where a row comes without a value.
    """

    name: str
    place: int
    encoding: Encoding
    declared: tuple[Encoding, ...] = ()
    proven: bool = False
    not_null: bool = False
    default: Any = None
    moment: str | None = None
    numbered: bool = False


@dataclass(kw_only=True)
class TablePlan:
    """
    What a table becomes.

    :param target: The table's name there.
    :param names: Names of the source's columns there.
    :param key: Columns there that tell its rows apart.
    :param facts: What the receipt says of its columns.
    :param left_out: Whatever of its definition is not carried: `{name, reason}`.
    :param widened: Which columns could not keep their declared type, and why, a sentence each.
    :param warnings: What else a person should read.
    """

    table: Table
    target: str
    columns: list[PlannedColumn]
    names: dict[str, str]
    key: list[str]
    facts: dict[str, Any] = field(default_factory=dict)
    left_out: list[dict[str, str]] = field(default_factory=list)
    widened: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def types(self) -> dict[str, str]:
        """PostgreSQL's types by the source's names."""
        by_name = {column.name: column.encoding.sql_type for column in self.columns}
        return {name: by_name[there] for name, there in self.names.items()}

    def key_places(self) -> list[int]:
        """Where the key's values stand in a converted row."""
        known = [column.name for column in self.columns]
        return [known.index(name) for name in self.key]


def plan_table(table: Table, found: list[ColumnSurvey], target: str) -> TablePlan:
    """
    Decide what a table becomes.

    :param found: What its columns hold, in their order.
    :param target: Its name there.
    """
    names = dict(
        zip(
            (c.name for c in table.columns), usable_names([c.name for c in table.columns], _SYSTEM_COLUMNS), strict=True
        )
    )
    plan = TablePlan(table=table, target=target, columns=[], names=names, key=[names[name] for name in table.key])
    by_name = {survey.column.name: survey for survey in found}
    broken = any(_cannot_tell_apart(by_name[name]) for name in table.key)
    if table.row_number and (not table.key or broken):
        plan.key = [_free_name(table.row_number, names.values())]
        if table.key:
            reason = "its columns hold NULL, or values that PostgreSQL cannot hold as they are"
            plan.left_out.append({"name": f"{table.name}: primary key ({', '.join(table.key)})", "reason": reason})
    plan.columns = [_planned(plan, survey) for survey in found]
    if table.row_number and plan.key != [names[name] for name in table.key]:
        plan.columns.append(
            PlannedColumn(name=plan.key[0], place=0, encoding=BIGINT, proven=True, not_null=True, numbered=True)
        )
        plan.facts["row number kept as"] = plan.key[0]
    for name, there in ((table.name, target), *names.items()):
        if name != there:
            plan.warnings.append(f"{table.name}: {name!r} is named {there!r}, as PostgreSQL cannot have that name")
    return plan


def _cannot_tell_apart(survey: ColumnSurvey) -> bool:
    """Whether PostgreSQL would not take a column as a key: it holds NULL, or values that change and may become equal."""
    return bool(survey.nulls or survey.unwritable) or survey.encoding is WRITTEN_OUT


def _planned(plan: TablePlan, survey: ColumnSurvey) -> PlannedColumn:
    column, encoding, table = survey.column, survey.encoding, plan.table
    there = plan.names[column.name]
    facts: dict[str, Any] = {"declared": column.declared, "type": encoding.sql_type, "written": encoding.name}
    facts["values"] = dict(sorted(survey.kinds.items()))
    plan.facts.setdefault("columns", {})[column.name] = facts
    if survey.widened:
        plan.widened.append(
            f"{table.name}.{column.name}: {column.declared or 'a column without a type'} cannot hold all of "
            f"{_held(survey)}; it becomes {encoding.sql_type} ({encoding.name})"
        )
    not_null = column.not_null or there in plan.key
    if not_null and survey.nulls:
        plan.left_out.append({"name": f"{table.name}.{column.name}: NOT NULL", "reason": f"{survey.nulls:,} are NULL"})
    if column.generated:
        reason = "the values are carried, the expression that computes them is not"
        plan.left_out.append({"name": f"{table.name}.{column.name}: GENERATED", "reason": reason})
    numbered = column.name == table.numbered_by and there in plan.key
    default, moment = _default(plan, column, encoding)
    return PlannedColumn(
        name=there,
        place=table.place(column.name),
        encoding=encoding,
        declared=tuple(declared(column)) if survey.widened else (),
        proven=survey.proven,
        not_null=not_null and not survey.nulls,
        default=None if numbered else default,
        moment=None if numbered else moment,
        numbered=numbered,
    )


_KIND_WORDS = {"int": "integers", "float": "floats", "str": "texts", "bytes": "byte strings"}


def _held(survey: ColumnSurvey) -> str:
    return ", ".join(f"{survey.kinds[kind]:,} {word}" for kind, word in _KIND_WORDS.items() if survey.kinds[kind])


def _default(plan: TablePlan, column: Column, encoding: Encoding) -> tuple[Any, str | None]:
    given = column.default
    if given is None or column.generated:
        return None, None
    if given.moment is not None:
        words = _MOMENTS.get((given.moment, encoding.sql_type.partition("(")[0].replace("varchar", "text")))
        if words is not None:
            return None, words
    elif given.value is not None:
        try:
            if is_writable((given.value,)):
                return encoding.encoded(given.value), None
        except UnfitError:
            pass
    reason = f"{given.text} has no counterpart in a column of type {encoding.sql_type}"
    plan.left_out.append({"name": f"{plan.table.name}.{column.name}: DEFAULT", "reason": reason})
    return None, None


def usable_names(names: Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    """
    Names as PostgreSQL can have them: as they are, if they have at most 63 bytes and are not taken.

    Others are cut and get eight digits of their hash, so that they stay apart.
    """
    given, taken = list(names), set(taken)
    return [name if _is_usable(name, taken) else _cut(name) for name in given]


def _is_usable(name: str, taken: set[str]) -> bool:
    return bool(name) and name not in taken and is_writable((name,)) and len(name.encode()) <= LONGEST_NAME


def _cut(name: str) -> str:
    digits = sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    start = name.replace("\0", "").encode("utf-8", "ignore")[: LONGEST_NAME - len(digits) - 1].decode("utf-8", "ignore")
    return f"{start}_{digits}"


def _free_name(name: str, taken: Iterable[str]) -> str:
    while name in set(taken):
        name += "_"
    return name
