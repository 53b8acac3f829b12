"""Keys, indexes, checks, sequences and references: built when the rows are there, each by itself, none silently left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Identifier

from migration.relational.plan import TablePlan, usable_names
from migration.relational.tables import ForeignKey, Index, IndexPart, Table, Tables
from migration.relational.target import TargetSchema

_TEXTS = ("text", "varchar")
_FOLDED = {"NOCASE": 'lower({} COLLATE "C")', "RTRIM": "rtrim({})"}
"""What compares as SQLite's collations do: ASCII letters without their case, texts without blanks behind them."""


class Builder:
    """
    Builds what one table has beside its rows.

    :param checks: What was built and what it showed, for the receipt.
    :param left_out: What PostgreSQL cannot have, with its reason.
    """

    def __init__(self, target: TargetSchema, source: Tables, plan: TablePlan) -> None:
        self.target, self.source, self.plan = target, source, plan
        self.table = target.path(plan.target)
        self.checks: dict[str, dict[str, Any]] = {}
        self.left_out: list[dict[str, str]] = []

    def build(self) -> None:
        """Indexes under the names that they had, then keys, whose names PostgreSQL chooses, checks and sequences."""
        for index in self.plan.table.indexes:
            if not index.constraint:
                self._index(index)
        self._add("primary key", self.plan.key, SQL("PRIMARY KEY ({})").format(_listed(self.plan.key)))
        for index in self.plan.table.indexes:
            if index.constraint:
                self._unique(index)
        for name, condition in self.plan.table.checks:
            self._check(name, condition)
        for column in self.plan.columns:
            if column.numbered:
                self._sequence(column.name)

    def refer(self, plans: Mapping[str, TablePlan], *, orphans: Mapping[str, int]) -> None:
        """
        Add the foreign keys.

        :param plans: Of all tables, by their names in the source.
        :param orphans: How many rows of the target refer to nothing, by the foreign key's label.
        """
        for key in self.plan.table.foreign_keys:
            to = plans.get(key.table)
            if to is None or not key.to_columns:
                self._leave_out(key.label, f"{key.table} has no such key, or is not among the tables")
            else:
                self._reference(key, to, orphans.get(key.label, 0))

    # Each kind

    def _index(self, index: Index) -> None:
        label = f"{'unique ' if index.unique else ''}index {index.name}"
        parts = [self._part(part) for part in index.parts]
        where = None if index.where is None else self._translated(index.where)
        if None in parts or (index.where is not None and where is None):
            self._leave_out(label, "its expression cannot be said in PostgreSQL's words with the same meaning")
            return
        self._make_index(label, index, SQL(", ").join([part for part in parts if part is not None]), where)

    def _make_index(self, label: str, index: Index, parts: Composable, where: str | None) -> None:
        (name,) = usable_names([index.name])
        statement = SQL("CREATE {unique}INDEX {name}ON {table} ({parts}){where}").format(
            unique=SQL("UNIQUE " if index.unique else ""),
            name=SQL("") if index.constraint else SQL("{} ").format(Identifier(name)),
            table=self.table,
            parts=parts,
            where=SQL("") if where is None else SQL(" WHERE {}").format(SQL(where)),
        )
        self._run(label, statement)

    def _unique(self, index: Index) -> None:
        columns = [self.plan.names[part.column] for part in index.parts if part.column]
        label = f"unique ({', '.join(columns)})"
        if all(self._folded(part) is None for part in index.parts):
            self._add("unique", columns, SQL("UNIQUE ({})").format(_listed(columns)))
        else:
            parts = [part for part in map(self._part, index.parts) if part is not None]
            self._make_index(label, index, SQL(", ").join(parts), None)

    def _check(self, name: str | None, condition: str) -> None:
        label, said = f"check ({condition})", self._translated(condition)
        if said is None:
            self._leave_out(label, "it cannot be said in PostgreSQL's words with the same meaning")
            return
        constraint = SQL("{}CHECK ({})").format(self._named(name), SQL(said))
        violated = (psycopg.errors.CheckViolation,)
        if self._run(label, self._alter(constraint), unless=violated):
            self._run(label, self._alter(SQL("{} NOT VALID").format(constraint)))
            self.checks[label] |= {"validated": False, "found": "rows that the source holds already do not pass it"}

    def _sequence(self, column: str) -> None:
        values = {"path": self.target.path_text(self.plan.target), "column": column}
        found = self.target.one("highest", values, table=self.table, column=Identifier(column))
        last = max(found["highest"] or 0, self.plan.table.last_number or 0)
        if last > 0:
            self.target.execute("set_sequence", {"sequence": found["sequence"], "value": last})
        self.checks[f"sequence of {column}"] = {"passed": True, "last": last}

    def _reference(self, key: ForeignKey, to: TablePlan, orphans: int) -> None:
        constraint = SQL(
            "{name}FOREIGN KEY ({columns}) REFERENCES {to} ({to_columns}) ON DELETE {delete} ON UPDATE {update}{deferred}"
        ).format(
            name=self._named(key.name),
            columns=_listed([self.plan.names[column] for column in key.columns]),
            to=self.target.path(to.target),
            to_columns=_listed([to.names[column] for column in key.to_columns]),
            delete=SQL(key.on_delete),
            update=SQL(key.on_update),
            deferred=SQL(" DEFERRABLE INITIALLY DEFERRED" if key.deferred else ""),
        )
        not_valid = self._alter(SQL("{} NOT VALID").format(constraint))
        violated = (psycopg.errors.ForeignKeyViolation,)
        if orphans:
            self._run(key.label, not_valid)
        elif self._run(key.label, self._alter(constraint), unless=violated):
            self._run(key.label, not_valid)
            self.checks[key.label] |= {"passed": False, "found": "rows refer to what is not there"}
        if key.label in self.checks:
            self.checks[key.label] |= {"orphans": orphans, "validated": not orphans}

    # Statements

    def _add(self, kind: str, columns: list[str], constraint: Composable) -> None:
        self._run(f"{kind} ({', '.join(columns)})", self._alter(constraint))

    def _alter(self, constraint: Composable) -> Composable:
        return SQL("ALTER TABLE {} ADD {}").format(self.table, constraint)

    def _named(self, name: str | None) -> Composable:
        return SQL("CONSTRAINT {} ").format(Identifier(*usable_names([name]))) if name else SQL("")

    def _run(self, label: str, statement: Composable, *, unless: tuple[type[psycopg.Error], ...] = ()) -> bool:
        """
        Run a statement by itself.

        :param unless: Errors that the caller has an answer to.
        :returns: Whether one of them came.
        """
        try:
            with self.target.connection.transaction():
                self.target.connection.execute(statement)  # type: ignore[call-overload]
        except unless:
            self.checks[label] = {"passed": True}
            return True
        except psycopg.errors.IntegrityError as exc:
            self.checks[label] = {"passed": False, "found": _told(exc)}
        except (psycopg.ProgrammingError, psycopg.OperationalError, psycopg.NotSupportedError) as exc:
            if self.target.connection.broken:
                raise
            self._leave_out(label, f"PostgreSQL refuses it: {_told(exc)}")
        else:
            self.checks[label] = {"passed": True}
        return False

    def _leave_out(self, label: str, reason: str) -> None:
        self.left_out.append({"name": f"{self.plan.table.name}: {label}", "reason": reason})

    # Expressions

    def _translated(self, expression: str) -> str | None:
        table: Table = self.plan.table
        if any(name != there for name, there in self.plan.names.items()):
            return None  # an expression would need the new names
        return self.source.translated(expression, table, self.plan.types)

    def _part(self, part: IndexPart) -> Composable | None:
        order = SQL(" DESC" if part.descending else "")
        if part.column is None:
            said = self._translated(part.expression or "")
            return None if said is None else SQL("({}){}").format(SQL(said), order)
        folded = self._folded(part)
        column = Identifier(self.plan.names[part.column])
        return SQL("{}{}").format(column if folded is None else SQL("({})").format(SQL(folded).format(column)), order)

    def _folded(self, part: IndexPart) -> str | None:
        if part.column is None or not self.plan.types[part.column].startswith(_TEXTS):
            return None
        return _FOLDED.get(part.collation)


def _listed(columns: list[str]) -> Composable:
    return SQL(", ").join(map(Identifier, columns))


def _told(exc: psycopg.Error) -> str:
    told = ". ".join(text for text in (exc.diag.message_primary, exc.diag.message_detail) if text) or str(exc)
    return told.rstrip(".")
