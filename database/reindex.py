"""
Rebuilding a table's indexes while it is read and written.

A new index is built concurrently under a name of its own, takes the old one's name in a short transaction, and the old one is
dropped concurrently. Whatever stops that, the old index serves, or already the new one; what is left over is told by its name,
or by being invalid, and the next run removes it.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.sql import SQL, Composed, Identifier, Literal

from database.errors import DatabaseError, GuardError, InvalidInputError, SchemaError
from database.filters import condition
from database.index_build import LOCK_TIMEOUT, Resources, briefly, is_local, resources, watched
from database.index_definition import Definition, Wanted
from database.index_variants import KNOWN_FOR, NEW, OLD, comment_for
from database.sql import statements

if TYPE_CHECKING:
    from psycopg import Connection

    from database.connection import Database

_SQL = statements(Path(__file__).with_suffix(".sql"))
_BUILD_SETTINGS = statements(Path(__file__).with_name("index_build.sql"))["build_settings"]

LOADING_NOTE = "synapse bulk load "

SETTLED_AFTER = KNOWN_FOR + 5.0
"""Seconds that an index of another kind stays beside its successor: every search has learnt of the new one by then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A transaction that the build waits for: whose, and since when it is open."""

    pid: int
    since: datetime | str | None
    role: str | None
    application: str | None
    state: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildProgress:
    """
    How far a rebuild is.

    :param index: The index.
    :param phase: What PostgreSQL is doing, in its words, or `swapping`, `settling`, `dropping`.
    :param done: Rows, or pages where PostgreSQL does not count rows.
    :param total: Of how many; 0 where that is not known.
    :param seconds_left: Of this phase.
    :param waits_for: Transactions that are in the way.
    """

    index: str
    phase: str
    done: int = 0
    total: int = 0
    seconds_left: float | None = None
    waits_for: tuple[Waiting, ...] = ()


Report = Callable[[BuildProgress], None]


@dataclass(frozen=True, kw_only=True)
class Reindexed:
    """
    What a rebuild did.

    :param table: The table.
    :param index: The index.
    :param definition: As PostgreSQL writes it.
    :param rows: Documents in it; `None` where it is no index by distance.
    :param bytes_before: Of the old one; 0 where there was none.
    :param bytes_after: Of the new one.
    :param seconds: In all.
    :param memory: Bytes that the build was given.
    :param workers: Parallel workers that it was given.
    :param cleared: What was left over from earlier builds, and is gone.
    :param mended: Other indexes of the table that a build that was stopped had left invalid, and are whole again.
    """

    table: str
    index: str
    definition: str
    rows: int | None
    bytes_before: int
    bytes_after: int
    seconds: float
    memory: int
    workers: int
    cleared: list[str] = field(default_factory=list)
    mended: list[str] = field(default_factory=list)


def reindex(
    owner: Database,
    table_name: str,
    *,
    wanted: Wanted | None = None,
    index: str | None = None,
    memory: int | None = None,
    workers: int | None = None,
    settle: float = SETTLED_AFTER,
    progress: Report | None = None,
) -> Reindexed:
    """
    Rebuild an index of a documents table without stopping readers or writers.

    :param owner: The database, connected as the owner of the table, as the tenant whose table it is; no transaction pooler.
    :param table_name: The documents table.
    :param wanted: What the index for searches by embedding is to be; what it leaves open stays as it is.
    :param index: The name of another index to rebuild as it is: that of the keywords, of a declared field.
    :param memory: Bytes for the build. By default what it needs and the machine has, where the server is on this machine.
    :param workers: Parallel workers; by default all cores of this machine, or the server's own setting.
    :param settle: Seconds that an index of another kind stays beside the new one, for searches that do not know of that yet.
    :param progress: Called about twice a second, from this thread.
    :raises GuardError: If a bulk load or another rebuild is under way, behind a transaction pooler, or without room on the disk.
    :raises InvalidInputError: If the index cannot be as wanted.
    """
    with Rebuild.opened(owner, table_name, progress=progress) as work:
        work.cleared = work.clear()
        work.mended = work.mend(but=index, memory=memory, workers=workers)
        wanted = wanted or Wanted()
        if index is not None:
            found = work.named(index)
            wanted = replace(wanted, filters=found.filters)
            if found.method not in Wanted.METHODS or found.name != wanted.name_for(table_name):
                return work.rebuild_as_it_is(found, memory=memory, workers=workers)
        return work.rebuild(wanted, memory=memory, workers=workers, settle=settle)


def leftovers(owner: Database, table_name: str) -> list[str]:
    """Indexes of a documents table that builds which were stopped have left, and that nobody is building now."""
    with owner.unpooled() as connection:
        return [one.name for one in _indexes(connection, _facts(connection, table_name)) if one.is_leftover]


def search_index(connection: Connection[Any], table_name: str) -> tuple[dict[str, Any], Index | None, int]:
    """
    What a table's searches by embedding go along.

    :returns: The table's facts, its index if it has one, and how many partitions the table has.
    :raises SchemaError: If there is no such table.
    """
    facts = _facts(connection, table_name)
    name = Wanted().name_for(table_name)
    found = next((one for one in _indexes(connection, facts) if one.name == name and one.valid), None)
    return facts, found, len(connection.execute(_SQL["partitions"], facts).fetchall())


@dataclass(frozen=True, kw_only=True)
class Index(Definition):
    """An index that is there."""

    schema: str
    name: str
    of_table: str
    partitioned: bool
    valid: bool
    is_unique: bool
    attached: bool
    declared: bool
    building: int | None
    size: int
    is_ours: bool

    @property
    def identifier(self) -> Identifier:
        return Identifier(self.schema, self.name)

    @property
    def is_leftover(self) -> bool:
        """Parts of an index on a partitioned table go and come with it."""
        if self.attached or self.building or self.is_unique:
            return False
        return self.name.endswith((NEW, OLD)) or (not self.valid and not self.declared and not self.is_ours)


class Rebuild:
    """
    One rebuild, on a connection of its own.

    :param owner: The database, connected as the owner of the table.
    :param connection: Of the owner, in autocommit mode.
    :param facts: Of the table.
    :param report: Called with how far it is.
    """

    def __init__(self, owner: Database, connection: Connection[Any], facts: dict[str, Any], *, report: Report) -> None:
        self.owner, self.connection, self.facts, self.report = owner, connection, facts, report
        self.table = Identifier(facts["schema"], facts["name"])
        self.cleared: list[str] = []
        self.mended: list[str] = []
        self.began = time.monotonic()

    @classmethod
    @contextmanager
    def opened(cls, owner: Database, table_name: str, *, progress: Report | None) -> Iterator[Rebuild]:
        """Everything that speaks against a rebuild is looked for first."""
        with owner.unpooled() as connection:
            require_session(owner, connection)
            facts = _facts(connection, table_name)
            if not _held(connection, facts["oid"]):
                raise GuardError(
                    f"Table {table_name} is being loaded, or its indexes rebuilt, by another process.",
                    hint="Wait until that is done, then run it again.",
                )
            if (facts["comment"] or "").startswith(LOADING_NOTE):
                raise GuardError(
                    f"A bulk load into table {table_name} was begun and not ended; its indexes are part of it.",
                    hint="Run the load again: it ends what it had begun.",
                )
            with suppress(psycopg.Error):  # only on Linux
                connection.execute(_SQL["prepare_session"])
            with owner.unpooled() as watcher:
                work = cls(owner, connection, facts, report=progress or (lambda _: None))
                work.watcher = watcher
                yield work

    watcher: Connection[Any]

    def indexes(self) -> list[Index]:
        """All indexes of the table, its partitions and its keyword tables."""
        return _indexes(self.connection, self.facts)

    def named(self, name: str) -> Index:
        """
        The index of that name.

        :raises InvalidInputError: If the table has none.
        """
        known = [one for one in self.indexes() if not one.attached]
        for one in known:
            if one.name == name:
                return one
        raise InvalidInputError(
            f"An index of {self.facts['name']} was expected, but {name} is none; "
            f"it has {', '.join(one.name for one in known) or 'none'}."
        )

    def clear(self) -> list[str]:
        """
        Remove what builds that were stopped have left.

        :returns: Their names.
        """
        gone = []
        for one in self.indexes():
            if one.is_leftover:
                self.drop(one.name, partitioned=one.partitioned)
                gone.append(one.name)
        return gone

    def mend(self, *, but: str | None, memory: int | None, workers: int | None) -> list[str]:
        """
        Rebuild the indexes of keywords and declared fields that are invalid.

        :param but: The one that is rebuilt anyway.
        :returns: Their names.
        """
        broken = [
            one
            for one in self.indexes()
            if not one.valid and not one.attached and not one.building and (one.declared or one.is_ours)
        ]
        mended = [one for one in broken if one.method not in Wanted.METHODS and one.name != but]
        for one in mended:
            self.rebuild_as_it_is(one, memory=memory, workers=workers)
        return [one.name for one in mended]

    def rebuild_as_it_is(self, found: Index, *, memory: int | None, workers: int | None) -> Reindexed:
        """PostgreSQL's own way of rebuilding, which keeps constraints and statistics: for indexes that change in nothing."""
        granted = resources(self.connection, needed=2 * found.size + 2**26, memory=memory, workers=workers)
        self.require_room(found.size)
        statement = SQL("REINDEX INDEX CONCURRENTLY {}").format(found.identifier)
        try:
            self.build(found.name, statement, granted)
        except BaseException:
            self.clear_quietly()
            raise
        return self.done(found.name, found, rows=None, granted=granted)

    def rebuild(self, wanted: Wanted, *, memory: int | None, workers: int | None, settle: float) -> Reindexed:
        """Build the index that is wanted, and put it in the old one's place."""
        name = wanted.name_for(self.facts["name"])
        old = next((one for one in self.indexes() if one.name == name and not one.attached), None)
        where, params = condition(wanted.filters)
        rows = self.one(_SQL["rows_to_index"], {**params}, table=self.table, condition=where)["rows"]
        new = wanted.over(
            old,
            vector_type=self.facts["vector_type"],
            dimension=self.facts["dimension"],
            rows=rows // max(len(self.partitions()), 1),
        )
        granted = resources(self.connection, needed=self.memory_for(new, rows), memory=memory, workers=workers)
        self.require_room(max(old.size if old else 0, new.disk(rows, dimension=self.facts["dimension"])))
        predicate = self.literal(where, params) if wanted.filters else None
        made = _shortened(name, NEW)
        try:
            self.build_new(name, made, new, predicate=predicate, granted=granted)
            self.swap(
                name, made, there=old is not None, comment=comment_for(wanted.filters) if wanted.filters else None
            )
        except BaseException:
            self.clear_quietly()
            raise
        if old is not None:
            if old.valid and not new.is_found_like(old):
                self.settle(name, settle)
            self.drop(_shortened(name, OLD), partitioned=old.partitioned)
        return self.done(name, old, rows=rows, granted=granted)

    def memory_for(self, new: Definition, rows: int) -> int:
        """What the largest part needs: partitions are built one after another, and some are larger than others."""
        count = len(self.partitions())
        return new.memory(rows * 11 // (10 * count) if count else rows, dimension=self.facts["dimension"])

    def partitions(self) -> list[str]:
        """The parts of a partitioned table."""
        if not self.facts["partitioned"]:
            return []
        return [row["name"] for row in self.connection.execute(_SQL["partitions"], self.facts).fetchall()]

    def build_new(self, name: str, made: str, new: Definition, *, predicate: str | None, granted: Resources) -> None:
        """Build it beside the old one; on a partitioned table part by part."""
        creation = partial(new.creation, dimension=self.facts["dimension"], predicate=predicate)
        parts = self.partitions()
        if not parts:
            self.build_one(name, made, creation(made, self.table), granted, own=new.own_setting)
            return
        self.briefly(name, [creation(made, self.table, only=True, built=False)])
        for number, part in enumerate(parts, start=1):
            leaf, label = _shortened(f"{part}_{secrets.token_hex(3)}", NEW), f"{name}, part {number} of {len(parts)}"
            statement = creation(leaf, self.placed(part))
            self.build_one(label, leaf, statement, granted, own=new.own_setting)
            attach = SQL("ALTER INDEX {} ATTACH PARTITION {}").format(self.placed(made), self.placed(leaf))
            self.briefly(label, [attach])

    def placed(self, name: str) -> Identifier:
        """A name with the table's schema."""
        return Identifier(self.facts["schema"], name)

    def build_one(self, label: str, made: str, creation: Composed, granted: Resources, *, own: str | None) -> None:
        """Build one index, and give it back the setting that was raised for that."""
        try:
            self.build(label, creation, granted)
        except (psycopg.errors.DiskFull, psycopg.errors.OutOfMemory):
            # Workers share the graph in /dev/shm, of which a container has 64 MB unless told otherwise.
            self.drop(made)
            self.build(label, creation, Resources(memory=granted.memory, workers=0))
        if own is not None:
            self.briefly(label, [SQL("ALTER INDEX {} SET ({})").format(self.placed(made), SQL(own))])

    def build(self, label: str, statement: Composed, granted: Resources) -> None:
        """Run a statement that builds, and report how far it is."""
        self.connection.execute(_BUILD_SETTINGS, granted.settings | {"local": False})
        self.watch(statement, _Clock(label))

    def watch(self, statement: Composed, clock: _Clock) -> None:
        """Run a statement that takes long, and report what PostgreSQL says of it."""

        def work() -> None:
            self.connection.execute(statement)

        def look() -> None:
            row = self.watcher.execute(_SQL["progress"], {"pid": self.connection.info.backend_pid}).fetchone()
            if row is not None:
                self.report(clock.seen(row))

        watched(self.connection, work, look=look)

    def swap(self, name: str, made: str, *, there: bool, comment: str | None) -> None:
        """Give the new index the old one's name, which takes no lock that readers or writers would wait for."""
        rename = SQL("ALTER INDEX {} RENAME TO {}")
        statements_ = [SQL("COMMENT ON INDEX {} IS {}").format(self.placed(made), Literal(comment))]
        if there:
            statements_.append(rename.format(self.placed(name), Identifier(_shortened(name, OLD))))
        statements_.append(rename.format(self.placed(made), Identifier(name)))
        self.briefly(name, statements_)

    def settle(self, name: str, seconds: float) -> None:
        """Wait until every search knows of the new index: until then some go along the old one."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            done = int(seconds - left)
            self.report(
                BuildProgress(index=name, phase="settling", done=done, total=int(seconds), seconds_left=round(left, 1))
            )
            time.sleep(min(0.5, left))

    def drop(self, name: str, *, partitioned: bool = False) -> None:
        """Drop an index, concurrently where PostgreSQL can: on a partitioned table it cannot, and the lock is tried for."""
        if partitioned:
            self.briefly(name, [SQL("DROP INDEX IF EXISTS {}").format(self.placed(name))], phase="dropping")
            return
        statement = SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(self.placed(name))
        self.watch(statement, _Clock(name, phase="dropping"))

    def briefly(self, name: str, statements_: Sequence[Composed], *, phase: str = "swapping") -> None:
        """
        Run statements in one transaction that gives up soon when it must wait for a lock, and try again.

        :raises DatabaseError: If the locks were not to be had; the message names who has been at work for long.
        """
        step = BuildProgress(index=name, phase=phase)
        if briefly(self.connection, statements_, waiting=lambda: self.report(replace(step, waits_for=self.oldest()))):
            return
        others = ", ".join(f"process {one.pid} since {one.since}" for one in self.oldest()) or "none that is open now"
        raise DatabaseError(
            f"Locks on {self.facts['name']} were expected within {LOCK_TIMEOUT}, but other transactions hold them: {others}.",
            hint="End them, then run it again; the old index serves meanwhile.",
        )

    def oldest(self) -> tuple[Waiting, ...]:
        """The transactions that have been open for longest."""
        return tuple(Waiting(**row) for row in self.watcher.execute(_SQL["oldest_transactions"]).fetchall())

    def require_room(self, size: int) -> None:
        """
        Check that the disk has room for an index and its part of the write-ahead log, where the disk is this machine's.

        :raises GuardError: If it has not.
        """
        place = self.connection.execute(_SQL["server_place"]).fetchone() or {}
        if not is_local(self.connection) or not place.get("data") or not Path(place["data"]).exists():
            return
        needed, free = size + min(size, int(place["wal"])), shutil.disk_usage(place["data"]).free
        if needed > free:
            raise GuardError(
                f"About {needed >> 20:,} MB are needed beside the old index until it is dropped, but the disk of "
                f"{place['data']} has {free >> 20:,} MB free.",
                hint="Free some, or drop the index first and build it again, without an index meanwhile.",
            )

    def literal(self, where: Composed, params: dict[str, Any]) -> str:
        """A filter's condition with its values written out, as a definition takes no parameters."""
        return psycopg.ClientCursor(self.connection).mogrify(where, params)

    def clear_quietly(self) -> None:
        """After an error: what cannot be removed now, the next run removes."""
        with suppress(psycopg.Error, DatabaseError):
            if not self.connection.closed and not self.connection.broken:
                self.clear()

    def done(self, name: str, before: Index | None, *, rows: int | None, granted: Resources) -> Reindexed:
        after = self.named(name)
        definition = self.one(
            "SELECT pg_get_indexdef(%(name)s::regclass) AS it", {"name": after.identifier.as_string()}
        )
        return Reindexed(
            table=self.facts["name"],
            index=name,
            definition=definition["it"],
            rows=rows,
            bytes_before=before.size if before else 0,
            bytes_after=after.size,
            seconds=round(time.monotonic() - self.began, 1),
            memory=granted.memory,
            workers=granted.workers,
            cleared=self.cleared,
            mended=self.mended,
        )

    def one(self, statement: str, params: dict[str, Any], **parts: Any) -> dict[str, Any]:
        composed = SQL(statement).format(**parts)  # type: ignore[arg-type]
        row: dict[str, Any] | None = self.connection.execute(composed, params).fetchone()
        return row or {}


class _Clock:
    """Turns what PostgreSQL says of a build into progress with the time that is left."""

    def __init__(self, label: str, *, phase: str = "starting") -> None:
        self._label, self._first = label, phase
        self._phase, self._since = "", time.monotonic()

    def seen(self, row: dict[str, Any]) -> BuildProgress:
        phase = row["phase"] or self._first
        if phase != self._phase:
            self._phase, self._since = phase, time.monotonic()
        counts = ("tuples", "blocks") if row["tuples_total"] else ("blocks", "tuples")
        done, total = int(row[f"{counts[0]}_done"] or 0), int(row[f"{counts[0]}_total"] or 0)
        passed = time.monotonic() - self._since
        return BuildProgress(
            index=self._label,
            phase=phase,
            done=min(done, total),
            total=total,
            seconds_left=round(passed * (total - done) / done, 1) if 0 < done <= total else None,
            waits_for=tuple(Waiting(**one) for one in row["waits_for"] or ()),
        )


def require_session(owner: Database, connection: Connection[Any]) -> None:
    """
    Check that a connection keeps its server process from one transaction to the next.

    PgBouncer and its like answer with another process number than the server's. Of these, one that gives the process to somebody
    else while we are connected pools transactions: locks and settings of a session would be somebody else's.

    :raises GuardError: If a transaction pooler stands between.
    """
    pid = (connection.execute(_SQL["backend"]).fetchone() or {})["pid"]
    if pid == connection.info.backend_pid:
        return
    for _ in range(3):
        with owner.unpooled() as other, other.transaction():
            taken = (other.execute(_SQL["backend"]).fetchone() or {})["pid"]
            mine = (connection.execute(_SQL["backend"]).fetchone() or {})["pid"]
        if taken == pid or mine != pid:
            raise GuardError(
                f"{owner.name} was expected to be the server itself, but is a transaction pooler.",
                hint="Set DATABASE_OWNER_URL to the server's own address, or to a session pooler's.",
            )


def _facts(connection: Connection[Any], table_name: str) -> dict[str, Any]:
    found = connection.execute(_SQL["table_facts"], {"table": Identifier(table_name).as_string()}).fetchone()
    if found is None:
        raise SchemaError(
            f"A documents table {table_name} was expected, but is not there.",
            hint="Run `python synapse.py models list`.",
        )
    return dict(found)


def _held(connection: Connection[Any], oid: int) -> bool:
    """Whether this run has the table to itself; of a run that was killed, the server notices within seconds."""
    for attempt in range(8):
        if (connection.execute(_SQL["hold"], {"oid": oid}).fetchone() or {})["got"]:
            return True
        time.sleep(0.5 if attempt < 7 else 0)
    return False


def _indexes(connection: Connection[Any], facts: dict[str, Any]) -> list[Index]:
    rows = connection.execute(_SQL["our_indexes"], {"oid": facts["oid"], "name": facts["name"]}).fetchall()
    canonical = {f"{facts['name']}_hnsw_index", f"{facts['name']}_keywords_terms", f"{facts['name']}_terms_term"}
    return [
        Index(
            **vars(Definition.read(row)),
            schema=row["schema"],
            name=row["name"],
            of_table=row["table_name"],
            partitioned=row["partitioned"],
            valid=row["valid"],
            is_unique=row["is_unique"],
            attached=row["attached"],
            declared=row["declared"],
            building=row["building"],
            size=row["bytes"],
            is_ours=row["name"] in canonical,
        )
        for row in rows
    ]


def _shortened(name: str, ending: str) -> str:
    """A name with an ending, within PostgreSQL's 63 bytes."""
    if len(name.encode()) + len(ending) <= 63:
        return name + ending
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name.encode()[: 54 - len(ending)].decode(errors='ignore')}_{digest}{ending}"
