"""
Connections to PostgreSQL: one pool per database and process, and every driver error turned into a sentence.

Statements are never prepared on the server. Prepared statements break behind transaction poolers, and after five
executions PostgreSQL may switch to a generic plan, which ignores how selective this query's filter is.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import re
import threading
import time
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, ConnectionPool, PoolTimeout

from database.embedded import EmbeddedServer, server_for
from database.errors import (
    ConfigurationError,
    DatabaseError,
    DatabaseUnavailableError,
    DataRefusedError,
    ExtensionMissingError,
    SchemaError,
    UnknownTenantError,
)
from database.running_reads import RunningReads
from database.tenancy import (
    DEFAULT_TENANT,
    checked_tenant,
    require_schema,
    search_path,
    takes_roles,
    transaction_settings,
)

if TYPE_CHECKING:
    from psycopg.abc import Params
    from psycopg.sql import SQL, Composed

    from config import Settings
    from database.reading import Reader, Replica

POOL_LEAST, POOL_SIZE = 1, 16
"""Connections that a pool keeps, and has at most."""

CONNECT_TIMEOUT = 10
"""Seconds until a connection attempt is given up."""

KNOCK_TIMEOUT = 2
"""The same for who has another server to ask; libpq takes nothing shorter."""

SIGNS_OF_LIFE = {
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""A minute after its network was cut, a connection is given up; the kernel's own defaults are a quarter of an hour and two hours."""

LARGE = 100_000
"""Bytes of a statement and its parameters above which no pipeline is used; a socket's buffer has about 200 KB."""

READ_ATTEMPTS = 3
"""A read is run again on a fresh connection when its connection was cut, this often in all."""

RETRY_PAUSE = 0.05
"""Seconds before that, more each time: a pooler may hand out another connection that was cut with it, until it has noticed."""

RESTART_PATIENCE = 5.0
"""Seconds that a read waits for a server that was there a moment ago."""

PROBE_AFTER = 1.0
"""Seconds that a free connection is waited for before somebody looks whether the server is there at all."""

AWAY = 10.0
"""Seconds for which a server that did not come back is waited for no more: whoever asks is told so at once."""

_ROLE_REFUSED = re.compile(
    r'role "synapse_tenant_([a-z0-9_]+)" does not exist|permission denied to set role "synapse_tenant_([a-z0-9_]+)"'
)
_WHERE_TYPES_ARE = "SELECT set_config('search_path', current_setting('search_path') || ', public, extensions', true)"
"""Supabase has its extensions in a schema of that name; elsewhere, PostgreSQL passes over it."""

_SQLALCHEMY_DRIVER = re.compile(r"^postgresql\+\w+://")

# The driver and its pool report each failed attempt; our errors say it once. A program that configures logging still gets them.
logging.getLogger("psycopg").addHandler(logging.NullHandler())

Row = dict[str, Any]
Statement: TypeAlias = "str | SQL | Composed"
AsyncPool: TypeAlias = "AsyncConnectionPool[psycopg.AsyncConnection[Row]]"


def open_database(settings: Settings) -> Database:
    """
    The database that the settings name, as their tenant sees it, ready for use.

    The embedded server is started and its schema upgraded; any other database must already be at our version.

    Its `for_reading()` leads to the standby that the settings name, if any.

    :raises DatabaseUnavailableError: If there is no connection.
    :raises SchemaError: If the schema is at another version.
    :raises ConfigurationError: If a standby is named, but not the primary.
    """
    if settings.database_read_url and not settings.database_url:
        raise ConfigurationError(
            "DATABASE_READ_URL names a standby of DATABASE_URL, but DATABASE_URL is not set.",
            hint="Set DATABASE_URL to the primary; the embedded server has no standby.",
        )
    database = database_for(settings.database_url, home=str(settings.home)).for_tenant(settings.tenant)
    database = database.reading_from(settings.database_read_url, max_lag=settings.database_max_lag_seconds)
    if settings.database_url:
        from database.schema import require_current

        require_current(database)
    return database


_databases: dict[tuple[int, str], Database] = {}
_registry_lock = threading.Lock()


def database_for(conninfo: str | None, *, home: str | None = None) -> Database:
    """
    The `Database` of a connection string: one, with one pool, per process.

    :param conninfo: Any form that libpq takes; `None` or empty means the embedded server, which is started.
    :param home: Home folder of the embedded server.
    :raises ConfigurationError: If the string is malformed, or both are missing.
    """
    server = None
    if not conninfo:
        if home is None:
            raise ConfigurationError(
                "A database is needed, but neither a connection string nor a home folder is given.",
                hint="Set DATABASE_URL, or pass home= to use the embedded server.",
            )
        server = server_for(Path(home).absolute())
        conninfo = server.conninfo()
    key = (os.getpid(), conninfo)
    with _registry_lock:
        if key not in _databases:
            if server is not None:
                server.start()
            _databases[key] = Database(conninfo, server=server)
        return _databases[key]


def parse_conninfo(conninfo: str) -> dict[str, Any]:
    """
    The parameters of a connection string, in any form that libpq takes: URIs, key=value, several hosts, services.

    :raises ConfigurationError: If it is malformed; the message does not show it, as it may hold a password.
    """
    try:
        return conninfo_to_dict(_SQLALCHEMY_DRIVER.sub("postgresql://", conninfo))
    except psycopg.ProgrammingError:
        raise ConfigurationError(
            "The connection string must be a URL such as postgresql://user:password@host:5432/name, or key=value pairs, "
            "but is neither.",
            hint="Check DATABASE_URL; special characters of a password are percent-encoded in a URL.",
        ) from None


class _Pools:
    """What all views of a database share."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.pool: ConnectionPool[psycopg.Connection[Row]] | None = None
        self.asynchronous: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncPool] = weakref.WeakKeyDictionary()
        self.closers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Task[None]] = (
            weakref.WeakKeyDictionary()
        )
        self.takes_roles = False
        self.seen: set[str] = set()
        self.there_until = 0.0
        self.away_until = 0.0
        self.silent = False  # somebody looked, and nothing answers: who has another server to ask does not wait
        self.running = RunningReads()
        self.counting = threading.Lock()
        self.written: Counter[str | None] = Counter()  # transactions that may have written, by tenant
        self.wrote_at = float("-inf")  # when the last of them succeeded
        self.replicas: dict[tuple[str, float], Replica] = {}


class Database:
    """
    A database and its pools. Safe to share between threads; each event loop gets a pool of its own.

    :param conninfo: Any form that libpq takes.
    :param server: The embedded server behind it, which is restarted if it should die.
    """

    def __init__(self, conninfo: str, *, server: EmbeddedServer | None = None) -> None:
        defaults: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT, "application_name": "synapse", **SIGNS_OF_LIFE}
        self.conninfo = make_conninfo(**(defaults | parse_conninfo(conninfo)))
        self.server = server
        self.tenant: str | None = None
        self.replica: Replica | None = None
        self._pools = _Pools()
        self._attempts = READ_ATTEMPTS
        self._patience = RESTART_PATIENCE

    def for_tenant(self, tenant: str) -> Database:
        """
        The same database, on the same pool, as a tenant sees it: each transaction takes the tenant's role.

        The owner of the schema takes no role, and is only led to the tenant's schema.

        :param tenant: A name of `tenancy.list_tenants`; whether it exists shows with the first statement.
        :raises InvalidInputError: If no tenant can have that name.
        """
        other = copy(self)
        other.tenant = checked_tenant(tenant)
        return other

    def without_tenant(self) -> Database:
        """The same database, on the same pool, as who connects sees it: the application's role sees no tenant's rows."""
        other = copy(self)
        other.tenant = None
        return other

    def without_patience(self) -> Database:
        """The same database, on the same pool, for who has another to ask: a read waits for no server that is away."""
        other = copy(self)
        other._attempts, other._patience = READ_ATTEMPTS - 1, 0.0
        return other

    def reading_from(self, read_conninfo: str | None, *, max_lag: float) -> Database:
        """
        The same database, whose `for_reading()` leads to a standby.

        :param read_conninfo: The standby, in any form that libpq takes; `None` or empty means that there is none.
        :param max_lag: Seconds that what is read there may be behind, above 0.
        :raises ConfigurationError: If the string is malformed.
        """
        from database.reading import Replica

        other = copy(self)
        other.replica = None
        if read_conninfo:
            with self._pools.lock:
                key = (read_conninfo, max_lag)
                if key not in self._pools.replicas:
                    self._pools.replicas[key] = Replica(self.without_tenant(), read_conninfo, max_lag=max_lag)
                other.replica = self._pools.replicas[key]
        return other

    def for_reading(self) -> Database | Reader:
        """
        What to read from where a little delay does no harm, such as a search: the standby, or this where there is none.

        Whatever this process wrote before is seen. `read` itself never goes to the standby.
        """
        if self.replica is None:
            return self
        from database.reading import Reader

        return Reader(self, self.replica)

    def __repr__(self) -> str:
        return f"Database({self.name!r})"

    @property
    def name(self) -> str:
        """Where it is, without secrets: `user@host:port/name`."""
        known = conninfo_to_dict(self.conninfo)
        place = (
            f"{known.get('host', 'localhost')}:{known.get('port', 5432)}/{known.get('dbname', known.get('user', ''))}"
        )
        return f"{known['user']}@{place}" if "user" in known else place

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Row]]:
        """
        A connection that was alive a moment ago, in one transaction: committed at the end, rolled back on an exception.

        :raises DatabaseError: For whatever the server or the driver refuses, with the driver's error as its cause.
        """
        with self._errors_wrapped(), self._noted_as_written(), self._checked_out(check=True) as connection:
            if local := self._transaction_settings():
                connection.execute(*_settings_statement(local))
            yield connection

    @asynccontextmanager
    async def connection_async(self) -> AsyncIterator[psycopg.AsyncConnection[Row]]:
        """`connection`, for asyncio."""
        with self._errors_wrapped(), self._noted_as_written():
            async with self._checked_out_async(check=True) as connection:
                if local := self._transaction_settings():
                    await connection.execute(*_settings_statement(local))
                yield connection

    def read(
        self,
        statement: Statement,
        params: Params | None = None,
        *,
        settings: Mapping[str, str] | None = None,
        binary: bool = True,
    ) -> list[Row]:
        """
        Run one SELECT in its own transaction, in one round trip, and again if its connection was cut.

        :param statement: The query.
        :param params: Its parameters.
        :param settings: PostgreSQL settings that hold for this query alone.
        :param binary: Whether values travel in binary format.
        :raises DatabaseError: As `connection`.
        """
        return self.read_all([statement], params, settings=settings, binary=binary)[0]

    def read_all(
        self,
        statements: Sequence[Statement],
        params: Params | None = None,
        *,
        settings: Mapping[str, str] | None = None,
        binary: bool = True,
    ) -> list[list[Row]]:
        """
        `read`, for several statements with the same parameters: in one transaction and one round trip.

        PostgreSQL takes a pipeline up to its Sync as one transaction; psycopg's own BEGIN and COMMIT would each send a Sync
        and wait for it.
        """
        with self._errors_wrapped():
            for attempt in range(1, self._attempts + 1):
                try:
                    with self._checked_out(check=attempt > 1) as connection, self._pools.running.noted(connection):
                        with nullcontext() if _is_large(statements, params) else _pipelined(connection):
                            if local := self._transaction_settings(settings):
                                connection.execute(*_settings_statement(local))
                            cursors = [connection.execute(one, params, binary=binary) for one in statements]
                        return [cursor.fetchall() for cursor in cursors]
                except (psycopg.OperationalError, psycopg.InternalError) as exc:
                    if attempt == self._attempts or not _was_cut(exc) or self._is_given_up():
                        raise
                    time.sleep(self._patience and RETRY_PAUSE * attempt)
                    self._revive()
            raise AssertionError("unreachable")

    async def read_async(
        self,
        statement: Statement,
        params: Params | None = None,
        *,
        settings: Mapping[str, str] | None = None,
        binary: bool = True,
    ) -> list[Row]:
        """`read`, for asyncio."""
        return (await self.read_all_async([statement], params, settings=settings, binary=binary))[0]

    async def read_all_async(
        self,
        statements: Sequence[Statement],
        params: Params | None = None,
        *,
        settings: Mapping[str, str] | None = None,
        binary: bool = True,
    ) -> list[list[Row]]:
        """`read_all`, for asyncio."""
        with self._errors_wrapped():
            for attempt in range(1, self._attempts + 1):
                try:
                    async with self._checked_out_async(check=attempt > 1) as connection:
                        with self._pools.running.noted(connection):
                            async with nullcontext() if _is_large(statements, params) else _pipelined_async(connection):
                                if local := self._transaction_settings(settings):
                                    await connection.execute(*_settings_statement(local))
                                cursors = [await connection.execute(one, params, binary=binary) for one in statements]
                            return [await cursor.fetchall() for cursor in cursors]
                except (psycopg.OperationalError, psycopg.InternalError) as exc:
                    if attempt == self._attempts or not _was_cut(exc) or self._is_given_up():
                        raise
                    await asyncio.sleep(self._patience and RETRY_PAUSE * attempt)
                    await asyncio.to_thread(self._revive)
            raise AssertionError("unreachable")

    def close(self) -> None:
        """Close the pool; the next use opens it again."""
        with self._pools.lock:
            pool, self._pools.pool = self._pools.pool, None
        if pool is not None:
            pool.close()
        for replica in list(self._pools.replicas.values()):
            replica.close()

    async def close_async(self) -> None:
        """Close the pool of the running event loop; the next use opens it again."""
        loop = asyncio.get_running_loop()
        self._pools.asynchronous.pop(loop, None)
        closer = self._pools.closers.pop(loop, None)
        if closer is not None:
            closer.cancel()
            await asyncio.wait([closer])
        for replica in list(self._pools.replicas.values()):
            await replica.close_async()

    def pool_stats(self) -> dict[str, int]:
        """
        What this process's pools hold.

        :returns: `open`, `idle`, `most` connections, and how many requests are `waiting` for one.
        """
        pools: list[Any] = [self._pools.pool, *self._pools.asynchronous.values()]
        found = [pool.get_stats() for pool in pools if pool is not None]
        names = {"open": "pool_size", "idle": "pool_available", "most": "pool_max", "waiting": "requests_waiting"}
        return {name: sum(stats.get(key, 0) for stats in found) for name, key in names.items()}

    @contextmanager
    def unpooled(self) -> Iterator[psycopg.Connection[Row]]:
        """One autocommit connection of its own, also to a database without the extension: for creating things."""
        with self._errors_wrapped(), self._noted_as_written():
            self._revive()
            with psycopg.connect(self.conninfo, autocommit=True, prepare_threshold=None, row_factory=dict_row) as fresh:
                if self.tenant is not None and self.tenant != DEFAULT_TENANT:
                    require_schema(fresh, self.tenant)
                    fresh.execute("SELECT set_config('search_path', %s, false)", (search_path(self.tenant),))
                yield fresh

    def _transaction_settings(self, settings: Mapping[str, str] | None = None) -> dict[str, str]:
        """What a transaction starts with; only after a connection was checked out is it known who connects."""
        local = dict(settings or {})
        if self.tenant is not None:
            if self._pools.takes_roles:
                return transaction_settings(self.tenant) | local
            if self.tenant != DEFAULT_TENANT:
                return {"search_path": search_path(self.tenant)} | local
        return local

    # Pools

    @contextmanager
    def _checked_out(self, *, check: bool) -> Iterator[psycopg.Connection[Row]]:
        pool = self._opened()
        connection = self._taken(pool)
        while check and not self._is_alive(connection):
            pool.putconn(connection)
            self._require_server()
            connection = self._taken(pool)
        try:
            with connection:
                yield connection
        finally:
            pool.putconn(connection)

    def _taken(self, pool: ConnectionPool[psycopg.Connection[Row]]) -> psycopg.Connection[Row]:
        try:
            return pool.getconn(timeout=self._probe_after)
        except PoolTimeout:
            self._require_server()
            return pool.getconn(timeout=CONNECT_TIMEOUT)

    @asynccontextmanager
    async def _checked_out_async(self, *, check: bool) -> AsyncIterator[psycopg.AsyncConnection[Row]]:
        pool = await self._opened_async()
        connection = await self._taken_async(pool)
        while check and not await self._is_alive_async(connection):
            await pool.putconn(connection)
            await asyncio.to_thread(self._require_server)
            connection = await self._taken_async(pool)
        try:
            async with connection:
                yield connection
        finally:
            await pool.putconn(connection)

    async def _taken_async(self, pool: AsyncPool) -> psycopg.AsyncConnection[Row]:
        try:
            return await pool.getconn(timeout=self._probe_after)
        except PoolTimeout:
            await asyncio.to_thread(self._require_server)
            return await pool.getconn(timeout=CONNECT_TIMEOUT)

    def _opened(self) -> ConnectionPool[psycopg.Connection[Row]]:
        pools = self._pools
        if pools.pool is not None and self._is_probed():
            return pools.pool
        with pools.lock:
            if pools.pool is None or not self._is_probed():
                self._probe()
            if pools.pool is None:
                pools.pool = ConnectionPool(**self._pool_arguments(), configure=self._prepare, open=True)
                atexit.register(self.close)
            return pools.pool

    async def _opened_async(self) -> AsyncPool:
        loop = asyncio.get_running_loop()
        pool = self._pools.asynchronous.get(loop)
        if pool is None or not self._is_probed():
            await asyncio.to_thread(self._probe)
        if pool is None:
            fresh: AsyncPool = AsyncConnectionPool(**self._pool_arguments(), configure=self._prepare_async, open=False)
            pool = self._pools.asynchronous.setdefault(loop, fresh)
            if pool is fresh:
                self._pools.closers[loop] = loop.create_task(_closed_with_the_loop(fresh))
                await pool.open()
        return pool

    def _is_probed(self) -> bool:
        """Whether a wrong tenant would show: taking its role fails, or else its schema was seen to be there."""
        return self._pools.takes_roles or self.tenant is None or self.tenant in self._pools.seen

    def _pool_arguments(self) -> dict[str, Any]:
        connection = {"prepare_threshold": None, "row_factory": dict_row}
        return {
            "conninfo": self.conninfo,
            "min_size": POOL_LEAST,
            "max_size": POOL_SIZE,
            "kwargs": connection,
            "name": "synapse",
            # The pool's pauses between attempts double, and an attempt that pauses keeps its place: after minutes without a
            # server, all places would pause for minutes more. An attempt that gives up leaves it to the next who asks.
            "reconnect_timeout": RESTART_PATIENCE,
        }

    def _require_server(self) -> None:
        """
        Look whether the server is there, if nobody did a moment ago.

        :raises DatabaseUnavailableError: If it is away, and did not come back within `RESTART_PATIENCE`; for some time after
            that, at once.
        """
        pools, now = self._pools, time.monotonic()
        if self._is_given_up():
            raise self.silence()
        if now < pools.there_until and self._patience:
            return
        try:
            self._probe(patience=0.0 if now < pools.away_until else self._patience)
        except psycopg.OperationalError as exc:
            if self._patience:
                pools.away_until = time.monotonic() + AWAY
            raise wrapped(exc, name=self.name) from exc
        pools.there_until, pools.away_until = time.monotonic() + PROBE_AFTER, 0.0

    def _probe(self, *, patience: float = 0.0) -> None:
        """
        Connect once outside the pool, which hides the reason of a failure behind a timeout.

        :param patience: Seconds that a server may take to come back.
        """
        deadline = time.monotonic() + patience
        while True:
            try:
                self._revive()
                limit: dict[str, Any] = {} if self._patience else {"connect_timeout": KNOCK_TIMEOUT}
                with psycopg.connect(self.conninfo, prepare_threshold=None, **limit) as connection:
                    self._prepare(connection)
                    self._pools.takes_roles = takes_roles(connection)
                    if self.tenant is not None and not self._pools.takes_roles:
                        require_schema(connection, self.tenant)
                        self._pools.seen.add(self.tenant)
                return
            except (psycopg.OperationalError, psycopg.InternalError) as exc:
                if time.monotonic() > deadline or not _was_cut(exc):
                    raise
                time.sleep(0.2)

    def _revive(self) -> None:
        if self.server is not None:
            self.server.start()

    @property
    def _probe_after(self) -> float:
        return PROBE_AFTER if self._patience else PROBE_AFTER / 10

    def silence(self) -> DatabaseUnavailableError:
        """What is raised where the server is known not to answer."""
        return DatabaseUnavailableError(
            f"A connection to {self.name} was expected, but the server does not answer.",
            hint="Check that the server runs, and the network between.",
        )

    def _is_given_up(self) -> bool:
        """Whether nobody waits for this server: it is known to be silent, and there is another to ask."""
        return self._pools.silent and not self._patience

    def _prepare(self, connection: psycopg.Connection[Any]) -> None:
        """What each new connection goes through."""
        _register_types(connection)

    async def _prepare_async(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """`_prepare`, for asyncio."""
        await _register_types_async(connection)

    def _is_alive(self, connection: psycopg.Connection[Any]) -> bool:
        try:
            with self._pools.running.noted(connection):
                ConnectionPool.check_connection(connection)
        except psycopg.Error:
            return False
        return True

    async def _is_alive_async(self, connection: psycopg.AsyncConnection[Any]) -> bool:
        try:
            with self._pools.running.noted(connection):
                await AsyncConnectionPool.check_connection(connection)
        except psycopg.Error:
            return False
        return True

    @contextmanager
    def _noted_as_written(self) -> Iterator[None]:
        """Whatever becomes of a transaction, also one whose COMMIT was cut: later reads want to see it."""
        try:
            yield
            self._pools.wrote_at = time.monotonic()
        finally:
            with self._pools.counting:  # a count that was lost would pass an old position off as a new one
                self._pools.written[self.tenant] += 1

    @contextmanager
    def _errors_wrapped(self) -> Iterator[None]:
        try:
            yield
        except PoolTimeout as exc:
            raise DatabaseUnavailableError(
                f"A free connection to {self.name} was expected within {CONNECT_TIMEOUT} s, but all {POOL_SIZE} are busy "
                "or the server stopped answering.",
                hint="Run fewer queries at once, or look for long transactions in pg_stat_activity.",
            ) from exc
        except psycopg.Error as exc:
            raise wrapped(exc, name=self.name) from exc


def wrapped(exc: psycopg.Error, *, name: str) -> DatabaseError:
    """
    Turn a driver's error into ours.

    :param exc: What psycopg raised.
    :param name: Where the database is, without secrets.
    """
    text = " ".join(str(exc).split())
    if isinstance(exc, psycopg.errors.InvalidPassword | psycopg.errors.InvalidAuthorizationSpecification) or (
        "authentication failed" in text or "no password supplied" in text
    ):
        return DatabaseUnavailableError(
            f"The server of {name} was expected to accept the user and password, but refused them.",
            hint="Check user and password in DATABASE_URL.",
        )
    if "does not exist" in text and 'database "' in text:
        return DatabaseUnavailableError(
            f"A database was expected at {name}, but the server has none of that name.",
            hint="Create it, or correct the name in DATABASE_URL.",
        )
    if role := _ROLE_REFUSED.search(text):
        return UnknownTenantError(
            f"A tenant of {name} was expected, but there is no {role[1] or role[2]!r}, or this role may not act for it.",
            hint="Run `python synapse.py tenants list`.",
        )
    if isinstance(exc, psycopg.errors.UndefinedTable):
        return SchemaError(
            f"A table was expected in {name} that is not there: {text.split(' LINE ')[0]}.",
            hint="Run `python synapse.py database upgrade`.",
        )
    if isinstance(exc, psycopg.DataError | psycopg.errors.ProgramLimitExceeded):
        return DataRefusedError(f"{name} cannot hold a value: {text.split(' LINE ')[0]}")
    if isinstance(exc, psycopg.OperationalError | psycopg.InternalError) and _was_cut(exc):
        return DatabaseUnavailableError(
            f"A connection to {name} was expected, but {_reason(text)}.",
            hint="Check that the server runs and that DATABASE_URL names its host and port.",
        )
    return DatabaseError(f"{name} refused a statement: {text.split(' LINE ')[0]}")


def _reason(text: str) -> str:
    known = {
        "Connection refused": "the server refused it: nothing listens there",
        "could not translate host name": "its host name is unknown",
        "failed to resolve host": "its host name is unknown",
        "timeout": "the server did not answer in time",
        "No such file or directory": "its socket is not there: the server is down",
        "server closed the connection": "the server closed it",
        "terminating connection": "the server closed it",
        "the database system is shutting down": "the server is shutting down",
        "starting up": "the server is still starting up",
        "too many": "the server has no connection left",
    }
    return next((reason for sign, reason in known.items() if sign in text), f"it failed: {text}")


def _was_cut(exc: psycopg.Error) -> bool:
    """Whether the connection is gone; a cut in the middle of a COMMIT reaches psycopg as an `InternalError` without a code."""
    if isinstance(exc, psycopg.errors.QueryCanceled):  # by a timeout or by hand: again, it would take as long again
        return False
    return exc.sqlstate is None or exc.sqlstate[:2] in ("08", "57")


async def _closed_with_the_loop(pool: AsyncPool) -> None:
    """
    Close a pool when its event loop ends, which cancels this task.

    The pool's own tasks are cancelled then, too; but until Python 3.12, `asyncio.wait_for` may swallow that, and such a
    worker waits for its next task forever, and `asyncio.run` for the worker. Where none did, closing the pool stumbles over
    its cancelled workers before it comes to the connections, which are therefore closed first.
    """
    try:
        await asyncio.Event().wait()
    finally:
        for _ in range(pool.get_stats()["pool_available"]):
            await (await pool.getconn()).close()
        with suppress(asyncio.CancelledError):
            await pool.close()


@contextmanager
def _pipelined(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """A pipeline that is one transaction: PostgreSQL ends it at the pipeline's one Sync."""
    connection.set_autocommit(True)
    try:
        with connection.pipeline():
            yield
    finally:
        if connection.pgconn.transaction_status == TransactionStatus.IDLE:  # and not cut
            connection.set_autocommit(False)


@asynccontextmanager
async def _pipelined_async(connection: psycopg.AsyncConnection[Any]) -> AsyncIterator[None]:
    """`_pipelined`, for asyncio."""
    await connection.set_autocommit(True)
    try:
        async with connection.pipeline():
            yield
    finally:
        if connection.pgconn.transaction_status == TransactionStatus.IDLE:
            await connection.set_autocommit(False)


def _settings_statement(settings: Mapping[str, str]) -> tuple[str, Sequence[str]]:
    calls = ", ".join("set_config(%s, %s, true)" for _ in settings)
    return f"SELECT {calls}", [text for item in settings.items() for text in item]


def _is_large(statements: Sequence[Statement], params: Params | None) -> bool:
    """
    Whether a socket may not take it at once: psycopg 3.3 flushes a pipeline's last message only once, and waits forever.

    Each parameter also stands in the statement, with a hundred characters around it or less.
    """
    values = params.values() if isinstance(params, Mapping) else params or ()
    return len(statements) * sum(100 + _length(value) for value in values) > LARGE


def _length(value: Any) -> int:
    if isinstance(value, str | bytes):
        return 4 * len(value)
    return sum(map(_length, value), 8 * len(value)) if isinstance(value, list) else 8


def _register_types(connection: psycopg.Connection[Any]) -> None:
    from pgvector.psycopg import register_vector

    try:
        connection.execute(_WHERE_TYPES_ARE)
        register_vector(connection)
    except psycopg.ProgrammingError as exc:
        raise _extension_missing() from exc
    connection.commit()


async def _register_types_async(connection: psycopg.AsyncConnection[Any]) -> None:
    from pgvector.psycopg import register_vector_async

    try:
        await connection.execute(_WHERE_TYPES_ARE)
        await register_vector_async(connection)
    except psycopg.ProgrammingError as exc:
        raise _extension_missing() from exc
    await connection.commit()


def _extension_missing() -> ExtensionMissingError:
    return ExtensionMissingError(
        "The extension vector was expected in this database, but is not installed.",
        hint="Run `python synapse.py database upgrade` as its owner, or CREATE EXTENSION vector as a superuser.",
    )
