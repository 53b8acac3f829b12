"""
Reading from a standby: what may be read there, and when.

    database = database_for(primary).reading_from(standby, max_lag=5.0)
    database.for_reading().read("SELECT …")   # from the standby, where it has what must be seen
    database.read("SELECT …")                 # always from the primary

Each read from the standby asks, in its own round trip, how far that server has replayed the write-ahead log, and its rows count
only where that is far enough. What is far enough, the primary says: every so often a read goes there and brings its position
along, and so does the first read after each write of this process. Whoever has replayed the position that the primary had at
some moment has everything that was committed until then: no clock is compared, and no standby believed that has lost touch.

Where one of the two is away, the other is read from. While that is the primary, nobody can say how far is far enough, and the
standby is read as it is.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from psycopg_pool import PoolTimeout

from database.connection import Database, Row, Statement
from database.errors import ConfigurationError, DatabaseError, DatabaseUnavailableError
from database.sql import statements
from database.standby import NOT_SEEN_YET, Side, Standby, Watch

BEHIND = (0.01, 0.5)
"""Seconds for which a standby that was behind is not asked again, as it would be in vain: at first, and at most."""

_SQL = statements(Path(__file__).with_suffix(".sql"))


class Step(NamedTuple):
    """What is run next, and where."""

    database: Database
    statements: Sequence[Statement]


Route = Generator[Step, list[list[Row]], list[list[Row]]]


class Replica:
    """
    A standby beside its primary: what is known of both, shared by all who read in this process.

    :param primary: The database.
    :param conninfo: The standby, in any form that libpq takes.
    :param max_lag: Seconds that what is read there may be behind, above 0.
    """

    def __init__(self, primary: Database, conninfo: str, *, max_lag: float) -> None:
        if not 0 < max_lag < float("inf"):
            raise ConfigurationError(f"max_lag must be a number of seconds above 0, but is {max_lag}.")
        self.max_lag = max_lag
        # It is looked for when the primary has said which cluster it is of.
        self.standby = Side(Standby(conninfo, self._require_cluster), trouble=NOT_SEEN_YET, is_known=False)
        self.primary = Side(primary)
        self.reads: Counter[tuple[str, str]] = Counter()
        self.watch = Watch([self.standby, self.primary])
        self._lock = threading.Lock()
        self._positions: deque[tuple[float, int]] = deque()
        self._written: dict[str | None, tuple[tuple[int, int], int]] = {}
        self._asking_until = 0.0
        self._behind_until, self._behind_for = 0.0, BEHIND[0]
        self._cluster: int | None = None

    @property
    def state(self) -> str:
        """Of the standby: `ok`, `behind`, or `away`."""
        if self.standby.is_away:
            return "away"
        return "behind" if time.monotonic() < self._behind_until else "ok"

    def close(self) -> None:
        """Close the connections to the standby; the next read opens them again."""
        self.watch.end()
        self.standby.database.close()

    async def close_async(self) -> None:
        """Close those of the running event loop; likewise."""
        await self.standby.database.close_async()

    def route(
        self, primary: Database, wanted: Sequence[Statement], *, instead: Sequence[Statement] | None = None
    ) -> Route:
        """
        The steps of one read. Each is sent its rows or thrown its error, and the last one's rows are returned.

        :param primary: The database, as who reads sees it.
        :param wanted: Statements.
        :param instead: Statements for the standby, which is then read only while the primary is away.
        """
        self.watch.begin()
        needed, why = self._needed(primary)
        if instead is None:
            instead = wanted
        elif not self.primary.is_away:
            needed, why = None, "current"
        asked_standby = needed is not None
        if needed is not None:
            try:
                position, *rows = yield self._on_standby(primary, [_SQL["standby_position"], *instead])
            except DatabaseError as exc:
                why = self._failed(exc)
            else:
                if self._has_replayed(position[0], needed):
                    return self._counted("standby", why, rows)
                why = "behind"
        if not self.primary.is_away:
            try:
                written, began = _written(primary), time.monotonic()
                position, *rows = yield Step(primary.without_patience(), [_SQL["primary_position"], *wanted])
            except DatabaseUnavailableError as exc:
                if isinstance(exc.__cause__, PoolTimeout):  # it is busy, and there
                    raise
                self.primary.leave(exc)
            else:
                self._note(primary.tenant, written, began, position[0])
                return self._counted("primary", why, rows)
            if not asked_standby and not self.standby.is_away:
                try:
                    rows = yield self._on_standby(primary, instead)
                except DatabaseError as exc:
                    self._failed(exc)
                else:
                    return self._counted("standby", "primary away", rows)
        rows = yield Step(primary, wanted)  # with all the patience there is
        self.primary.come_back()
        return self._counted("primary", why, rows)

    def _needed(self, primary: Database) -> tuple[int | None, str]:
        """What a standby must have replayed, `None` where the primary is asked; and why."""
        if self.standby.is_away:
            return None, "standby away"
        if self.primary.is_away:
            return 0, "primary away"
        written, now = _written(primary), time.monotonic()
        with self._lock:
            known, own = self._written.get(primary.tenant, ((0, 0), 0))
            if known != written:
                return None, "own writes"
            if now < self._behind_until:
                return None, "behind"
            while self._positions and self._positions[0][0] < now - self.max_lag:
                self._positions.popleft()
            due = not self._positions or self._positions[-1][0] < now - self.max_lag / 2
            if not self._positions or (due and now > self._asking_until):
                self._asking_until = now + self.max_lag / 4  # one asks, and the others go on with what is known
                return None, "position"
            return max(own, self._positions[0][1]), "fresh"

    def _has_replayed(self, row: Row, needed: int) -> bool:
        """Whether the standby has everything up to a position; one that is no standby any more has."""
        if not row["in_recovery"] or (row["position"] or 0) >= needed:
            self._behind_for = BEHIND[0]
            return True
        self._behind_until = time.monotonic() + self._behind_for
        self._behind_for = min(2 * self._behind_for, BEHIND[1])
        return False

    def _note(self, tenant: str | None, written: tuple[int, int], began: float, row: Row) -> None:
        """Keep the position that the primary had after so many writes, at a time."""
        position: int | None = row["position"]
        if position is None:  # DATABASE_URL leads to a standby
            return
        with self._lock:
            self._cluster, self.standby.is_known = row["cluster"], True
            if not self._positions or self._positions[-1][0] < began - self.max_lag / 20:
                self._positions.append((began, position))
            if self._written.get(tenant, ((0, 0), 0))[0] < written:
                self._written[tenant] = (written, position)

    def _failed(self, exc: DatabaseError) -> str:
        """
        What the standby's error means: whatever it refuses, the primary is asked, whose word counts.

        :raises DatabaseError: If it took too long; on the primary it would again.
        """
        if isinstance(exc.__cause__, psycopg.errors.QueryCanceled):
            raise exc
        if isinstance(exc, DatabaseUnavailableError):
            self.standby.leave(exc)
            return "standby away"
        # 40001: what the query looked at was removed on the primary, and the standby could not put it off any longer.
        return "conflict" if getattr(exc.__cause__, "sqlstate", None) == "40001" else "refused"

    def _counted(self, server: str, why: str, rows: list[list[Row]]) -> list[list[Row]]:
        with self._lock:
            self.reads[server, why] += 1
        return rows

    def _on_standby(self, primary: Database, wanted: Sequence[Statement]) -> Step:
        standby = self.standby.database
        return Step(standby if primary.tenant is None else standby.for_tenant(primary.tenant), wanted)

    def _require_cluster(self, found: int) -> None:
        if self._cluster is not None and found != self._cluster:
            raise DatabaseUnavailableError(
                f"A standby of {self.primary.database.name} was expected in DATABASE_READ_URL, but "
                f"{self.standby.database.name} is another server.",
                hint="Name a standby by streaming replication; what a logical one has, nobody can tell.",
            )


class Reader:
    """
    A database as a tenant sees it, for reads that may be a little behind; with `Database`'s own methods.

    :param primary: The database.
    :param replica: Its standby.
    """

    def __init__(self, primary: Database, replica: Replica) -> None:
        self.primary = primary
        self.replica = replica

    def read(
        self,
        statement: Statement,
        params: Mapping[str, Any] | None = None,
        *,
        settings: Mapping[str, str] | None = None,
        binary: bool = True,
    ) -> list[Row]:
        """As `Database.read`, but from the standby where that has what must be seen."""
        return self.read_all([statement], params, settings=settings, binary=binary)[0]

    def read_all(
        self,
        statements: Sequence[Statement],
        params: Mapping[str, Any] | None = None,
        *,
        settings: Mapping[str, str] | None = None,
        binary: bool = True,
    ) -> list[list[Row]]:
        """As `Database.read_all`, likewise."""
        way = _Way(self.replica.route(self.primary, statements))
        while way.step:
            database, wanted = way.step
            try:
                rows = database.read_all(wanted, params, settings=settings, binary=binary)
            except DatabaseError as exc:
                way.fail(exc)
            else:
                way.go_on(rows)
        return way.rows

    async def read_async(
        self,
        statement: Statement,
        params: Mapping[str, Any] | None = None,
        *,
        settings: Mapping[str, str] | None = None,
        binary: bool = True,
    ) -> list[Row]:
        """`read`, for asyncio."""
        return (await self.read_all_async([statement], params, settings=settings, binary=binary))[0]

    async def read_all_async(
        self,
        statements: Sequence[Statement],
        params: Mapping[str, Any] | None = None,
        *,
        settings: Mapping[str, str] | None = None,
        binary: bool = True,
    ) -> list[list[Row]]:
        """`read_all`, for asyncio."""
        return await self._go_async(self.replica.route(self.primary, statements), params, settings, binary)

    async def read_current_async(
        self,
        statement: Statement,
        params: Mapping[str, Any] | None = None,
        *,
        on_standby: Statement,
        settings: Mapping[str, str] | None = None,
    ) -> list[Row]:
        """
        As `Database.read_async`, and while the primary is away, from the standby.

        :param on_standby: What is run there; the same, without what only a primary can do.
        """
        route = self.replica.route(self.primary, [statement], instead=[on_standby])
        return (await self._go_async(route, params, settings, True))[0]

    async def _go_async(
        self, route: Route, params: Mapping[str, Any] | None, settings: Mapping[str, str] | None, binary: bool
    ) -> list[list[Row]]:
        way = _Way(route)
        while way.step:
            database, wanted = way.step
            try:
                rows = await database.read_all_async(wanted, params, settings=settings, binary=binary)
            except DatabaseError as exc:
                way.fail(exc)
            else:
                way.go_on(rows)
        return way.rows


class _Way:
    """A route that is gone step by step."""

    def __init__(self, route: Route) -> None:
        self._route = route
        self.rows: list[list[Row]] = []
        self.step: Step | None = next(route)

    def go_on(self, rows: list[list[Row]]) -> None:
        """The step returned rows."""
        try:
            self.step = self._route.send(rows)
        except StopIteration as end:
            self.step, self.rows = None, end.value

    def fail(self, exc: DatabaseError) -> None:
        """The step failed; raised where that is the end of it."""
        try:
            self.step = self._route.throw(exc)
        except StopIteration as end:
            self.step, self.rows = None, end.value


def _written(primary: Database) -> tuple[int, int]:
    """How many transactions of this process may have written what is read: the tenant's, and those of no tenant."""
    written = primary._pools.written
    return written[primary.tenant], written[None]
