"""The rows of a SQLite database, table by table, and the references between them that lead nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from database.errors import InvalidInputError
from database.sql import statements
from migration.relational.tables import ForeignKey, Row, Table, Value
from migration.sources.sqlite import SqliteFile
from migration.sources.sqlite_expressions import translate
from migration.sources.sqlite_reflection import Reflection, quoted

_SQL = statements(Path(__file__).with_suffix(".sql"))


class SqliteTables(SqliteFile):
    """
    The tables of a SQLite database.

    :param path: The file.
    :raises InvalidInputError: As `SqliteFile`, and if there is no table in it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            self._reflection = Reflection(self.connection)
            if not self._reflection.tables:
                raise InvalidInputError(f"Tables were expected, but the SQLite database {path} has none.")
        except BaseException:
            self.close()
            raise
        self.left_out = self._reflection.left_out
        self._by_name = {table.name: table for table in self._reflection.tables}

    def tables(self) -> list[Table]:
        """All tables, by name."""
        return self._reflection.tables

    def rows(self, table: Table, *, after: int | None = None) -> Iterator[Row]:
        """Rows in the order of their numbers, or of their primary key where they have none."""
        names = {"table": quoted(table.name), "columns": ", ".join(quoted(column.name) for column in table.columns)}
        if table.row_number:
            known = "rows" if after is None else "rows_after"
            sql = _SQL[known].format(number=table.row_number, **names)
            yield from self.connection.execute(sql, [] if after is None else [after])
            return
        skip = 0 if after is None else after + 1
        sql = _SQL["rows_by_key"].format(key=", ".join(map(quoted, table.key)), **names)
        for place, row in enumerate(self.connection.execute(sql, [skip]), start=skip):
            yield (place, *row)

    def orphans(self, table: Table, key: ForeignKey, *, gone: dict[str, set[int]]) -> Iterator[tuple[int, Row]]:
        """Found by a query of our own: SQLite's check folds letters as the key does, and stops at keys that it calls mismatched."""
        parent = self._by_name[key.table]
        self._note_gone(parent, key, gone.get(parent.name, set()))
        pairs = list(zip(key.columns, key.to_columns, strict=True))
        order = [table.row_number] if table.row_number else [quoted(name) for name in table.key]
        sql = _SQL["rows_without_parent"].format(
            number=f"here.{table.row_number}" if table.row_number else "NULL",
            columns=", ".join(f"here.{quoted(column)}" for column in key.columns),
            table=quoted(table.name),
            to=quoted(parent.name),
            refers=" AND ".join(f"there.{quoted(to)} = here.{quoted(of)} COLLATE BINARY" for of, to in pairs),
            is_gone=" AND ".join(f"gone.c{place} IS there.{quoted(to)}" for place, (_, to) in enumerate(pairs)),
            wanted="absent" if table.row_number else "1",
            order=", ".join(f"here.{name}" for name in order),
        )
        for place, (absent, number, *values) in enumerate(self.connection.execute(sql)):
            if absent and None not in values:
                yield (place if number is None else number), tuple(values)

    def _note_gone(self, to: Table, key: ForeignKey, gone: set[int]) -> None:
        """A temporary table, in memory, of what rows that do not count were referred to by."""
        names = [f"c{number}" for number in range(len(key.to_columns))]
        self.connection.execute("DROP TABLE IF EXISTS temp.gone")
        self.connection.execute(f"CREATE TEMP TABLE gone ({', '.join(names)})")
        places = [to.place(column) for column in key.to_columns]
        for row in self.rows(to) if gone else ():
            if row[0] in gone:
                values = [row[place] for place in places]
                marks = ", ".join("CAST(? AS TEXT)" if isinstance(value, str) else "?" for value in values)
                self.connection.execute(_SQL["note_gone"].format(marks=marks), [_bindable(value) for value in values])

    def translated(self, expression: str, table: Table, types: dict[str, str]) -> str | None:
        """A condition or an expression in PostgreSQL's words; `None` if its meaning would not be the same there."""
        return translate(expression, types, collated=self._reflection.collated[table.name])


def _bindable(value: Value) -> Value:
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
