"""The first pass over a table: what its columns really hold, and the first encoding that keeps all of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from migration.progress import OnProgress, Progress
from migration.relational.encodings import WRITTEN_OUT, Encoding, candidates, declared
from migration.relational.tables import Column, Row, Table, Tables, Value

BATCH_ROWS = 2000
BATCH_BYTES = 8 * 2**20

REPLACEMENT = "\ufffd"


@dataclass
class ColumnSurvey:
    """
    What a column holds.

    :param encoding: The one that was taken.
    :param proven: Whether every value was tried with it, and kept.
    :param kinds: How many values of each of Python's types; `NoneType` for NULL.
    :param unwritable: Texts with U+0000 or bytes that are no UTF-8.
    """

    column: Column
    encoding: Encoding = WRITTEN_OUT
    proven: bool = False
    kinds: Counter[str] = field(default_factory=Counter)
    unwritable: int = 0

    @property
    def nulls(self) -> int:
        """How many values are NULL."""
        return self.kinds["NoneType"]

    @property
    def widened(self) -> bool:
        """Whether the declared type could not keep everything; a column without one has none to leave."""
        return self.column.kind != "any" and self.encoding not in declared(self.column)


def survey(source: Tables, table: Table, report: OnProgress, *, strict: bool = False) -> list[ColumnSurvey]:
    """
    Read a table, as often as it takes to find an encoding for every column; nearly always once.

    :param strict: Stay with the declared types, each in the encoding that keeps most values.
    """
    found = [ColumnSurvey(column) for column in table.columns]
    compared = _compared(table)
    first = [_usable(declared(column), column.name in compared) for column in table.columns]
    later = [_usable(candidates(column), column.name in compared) for column in table.columns]
    alive = {place: list(encodings) for place, encodings in enumerate(first)}
    _narrow(source, table, alive, report, count=found)
    _take(found, alive)
    open_ = [place for place, left in alive.items() if not left]
    if strict and open_:
        _settle_strictly(source, table, found, {place: first[place] for place in open_ if first[place]})
        open_ = [place for place in open_ if not first[place]]
    if open_:
        alive = {place: [one for one in later[place] if one not in first[place]] for place in open_}
        _narrow(source, table, alive, report)
        _take(found, alive)
    return found


def _take(found: list[ColumnSurvey], alive: dict[int, list[Encoding]]) -> None:
    for place, left in alive.items():
        found[place].encoding, found[place].proven = (left[0], True) if left else (WRITTEN_OUT, False)


def _compared(table: Table) -> set[str]:
    """Columns that PostgreSQL must be able to compare."""
    indexed = {part.column for index in table.indexes for part in index.parts if part.column}
    return {*table.key, *indexed, *(column for key in table.foreign_keys for column in key.columns)}


def _usable(encodings: Iterable[Encoding], compared: bool) -> list[Encoding]:
    return [encoding for encoding in encodings if encoding.indexable or not compared]


def _narrow(
    source: Tables,
    table: Table,
    alive: dict[int, list[Encoding]],
    report: OnProgress,
    count: list[ColumnSurvey] | None = None,
) -> None:
    """Strike out the encodings that do not keep a value; with `count`, note what there is."""
    done = 0
    for batch in batches(source.rows(table)):
        columns = list(zip(*batch, strict=True))[1:]
        for place, encodings in alive.items():
            values = columns[place]
            kinds = Counter(map(type, values))
            if str in kinds and not is_writable(values):
                unwritable = sum(isinstance(value, str) and not is_writable((value,)) for value in values)
                values = tuple(written(value) for value in values)
                if count is not None:
                    count[place].unwritable += unwritable
            if count is not None:
                count[place].kinds.update({kind.__name__: number for kind, number in kinds.items()})
            present = kinds.keys() - {type(None)}
            encodings[:] = [one for one in encodings if present <= one.kinds and _keeps(one, values)]
        done += len(batch)
        report(Progress(step="looking at the values", part=table.name, done=done, total=table.rows))


def _keeps(encoding: Encoding, values: Iterable[Value]) -> bool:
    return encoding.encode is None or all(map(encoding.fits, values))


def _settle_strictly(
    source: Tables, table: Table, found: list[ColumnSurvey], choices: dict[int, list[Encoding]]
) -> None:
    kept = {place: [0] * len(encodings) for place, encodings in choices.items()}
    for row in source.rows(table):
        for place, encodings in choices.items():
            value = written(row[place + 1])
            for number, encoding in enumerate(encodings):
                kept[place][number] += encoding.fits(value)
    for place, numbers in kept.items():
        found[place].encoding = choices[place][numbers.index(max(numbers))]


def batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """Rows in lists that are neither long nor large."""
    while batch := list(islice(_bounded(rows), BATCH_ROWS)):
        yield batch


def _bounded(rows: Iterator[Row]) -> Iterator[Row]:
    size = 0
    for row in rows:
        yield row
        size += sum(len(value) for value in row if isinstance(value, str | bytes))
        if size > BATCH_BYTES:
            return


def is_writable(values: Iterable[Value]) -> bool:
    """Whether PostgreSQL's text can hold all texts among these."""
    joined = "".join([value for value in values if type(value) is str])
    if "\0" in joined:
        return False
    try:
        joined.encode()
    except UnicodeEncodeError:
        return False
    return True


def written(value: Value) -> Value:
    """A text with the replacement character for what PostgreSQL's text cannot hold; other values as they are."""
    if not isinstance(value, str) or is_writable((value,)):
        return value
    return value.replace("\0", REPLACEMENT).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
