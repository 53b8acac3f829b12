"""The target read back and compared with the source, row by row, by key; nothing is written."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC
from typing import Any, TypeAlias

from psycopg.rows import tuple_row
from psycopg.sql import SQL, Composable, Identifier, Placeholder

from migration.progress import OnProgress, Progress
from migration.receipt import PartReceipt
from migration.rejects import plain
from migration.relational.conversion import Policies, checksum, convert, row_hash
from migration.relational.encodings import ZONED
from migration.relational.plan import PlannedColumn, TablePlan
from migration.relational.survey import batches
from migration.relational.tables import Tables
from migration.relational.target import SQLS, TargetSchema

Key: TypeAlias = "tuple[Any, ...]"
MadeRow: TypeAlias = "tuple[Any, ...]"


class TableVerification:
    """
    Compares one table.

    :param gone: Positions of rows that are rejected.
    :param books: Where what is found is written.
    """

    def __init__(
        self,
        source: Tables,
        target: TargetSchema,
        plan: TablePlan,
        policies: Policies,
        gone: set[int],
        books: PartReceipt,
    ) -> None:
        self.source, self.target, self.plan, self.policies = source, target, plan, policies
        self.gone, self.books = gone, books
        self._places = plan.key_places()
        self._zoned = [n for n, column in enumerate(plan.columns) if column.encoding.sql_type == ZONED]
        self._keys = [plan.columns[place] for place in self._places]
        self._parts: dict[str, Composable] = {
            "table": target.path(plan.target),
            "columns": SQL(", ").join(map(_readable, plan.columns)),
            "keys": SQL(", ").join(SQL("{}::{}[]").format(Placeholder(), SQL(_bare_type(key))) for key in self._keys),
            "names": SQL(", ").join(Identifier(f"wanted {number}") for number in range(len(self._keys))),
            "match": SQL(" AND ").join(
                SQL("{} = wanted.{}").format(Identifier(plan.target, key.name), Identifier(f"wanted {number}"))
                for number, key in enumerate(self._keys)
            ),
        }

    def run(self, report: OnProgress) -> None:
        """Go through the source once, and through the target as far as that asks for it."""
        self.target.execute("read_by_key")
        expected_sum = found_sum = found = done = 0
        for batch in self._expected():
            wanted = {self._key(row): row for row in batch}
            for row in self._read(list(wanted)):
                found, number = found + 1, row_hash(row)
                found_sum += number
                expected = wanted.pop(self._key(row), None)
                if expected is None:
                    self.books.extra.add(self._shown(row))
                elif repr(expected) == repr(row):
                    expected_sum += number
                else:
                    expected_sum += row_hash(expected)
                    self.books.different.add({"id": self._shown(row), "columns": self._unlike(expected, row)})
            for row in wanted.values():
                expected_sum += row_hash(row)
                self.books.missing.add(self._shown(row))
            done += len(batch)
            report(Progress(step="verifying", part=self.plan.table.name, done=done, total=self.books.records))
        if self.target.count(self.plan.target) > found:
            for row in self._extra():
                found_sum += row_hash(row)
                self.books.extra.add(self._shown(row))
        self.books.source_checksum, self.books.target_checksum = checksum(expected_sum), checksum(found_sum)

    def _expected(self) -> Iterator[list[MadeRow]]:
        for batch in batches(self.source.rows(self.plan.table)):
            yield [row for row in convert(self.plan, batch, self.policies, gone=self.gone).rows if row is not None]

    def _read(self, keys: list[Key]) -> Iterator[MadeRow]:
        if keys:
            statement = SQL(SQLS["rows_by_key"]).format(**self._parts)
            with self.target.connection.cursor(row_factory=tuple_row) as cursor:
                cursor.execute(statement, [list(values) for values in zip(*keys, strict=True)], binary=True)
                yield from map(self._normal, cursor.fetchall())

    def _extra(self) -> list[MadeRow]:
        """Rows whose keys the source has not; its keys go into a temporary table."""
        names = SQL(", ").join(Identifier(key.name) for key in self._keys)
        types = SQL(", ").join(SQL("{} {}").format(Identifier(key.name), SQL(_bare_type(key))) for key in self._keys)
        same = SQL(" AND ").join(SQL("expected.{0} = there.{0}").format(Identifier(key.name)) for key in self._keys)
        columns = SQL(", ").join(_readable(column, table="there") for column in self.plan.columns)
        with self.target.connection.transaction():
            self.target.execute("create_expected", columns=types)
            with (
                self.target.connection.cursor() as loading,
                loading.copy(SQL(SQLS["copy_expected"]).format(columns=names)) as copy,
            ):
                for batch in self._expected():
                    for row in batch:
                        copy.write_row(self._key(row))
            with self.target.connection.cursor(row_factory=tuple_row) as cursor:
                cursor.execute(SQL(SQLS["extra"]).format(columns=columns, table=self._parts["table"], match=same))
                return [self._normal(row) for row in cursor.fetchall()]

    def _key(self, row: MadeRow) -> Key:
        return tuple(row[place] for place in self._places)

    def _shown(self, row: MadeRow) -> Any:
        key = [plain(value) for value in self._key(row)]
        return key[0] if len(key) == 1 else key

    def _unlike(self, expected: MadeRow, row: MadeRow) -> list[str]:
        pairs = zip(self.plan.columns, expected, row, strict=True)
        return [column.name for column, one, other in pairs if repr(one) != repr(other)]

    def _normal(self, row: MadeRow) -> MadeRow:
        """Moments in the one time zone object that expected rows have."""
        if not self._zoned:
            return row
        values = list(row)
        for place in self._zoned:
            if values[place] is not None:
                values[place] = values[place].astimezone(UTC)
        return tuple(values)


def _readable(column: PlannedColumn, *, table: str | None = None) -> Composable:
    name = Identifier(table, column.name) if table else Identifier(column.name)
    return SQL("{}::text").format(name) if column.encoding.sql_type == "json" else name


def _bare_type(column: PlannedColumn) -> str:
    return column.encoding.sql_type.partition("(")[0]
