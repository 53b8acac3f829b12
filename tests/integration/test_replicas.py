"""Reading from a standby that streams: what goes there, what is seen there, and what happens when one of the two is away."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from haystack import Document
from haystack.utils import Secret
from psycopg.conninfo import make_conninfo

from config import Settings
from database.accounts import Accounts
from database.connection import Database, database_for, open_database
from database.document_store import SynapseDocumentStore
from database.embedded import EmbeddedServer
from database.errors import ConfigurationError, DatabaseError
from database.reading import Reader, Replica
from database.replicas import lag
from database.tenancy import create_tenant, schema_of
from tests.support.relay import relayed
from tests.support.replica_load import OTHER, fill, store_on
from tests.support.standby import Pair, pair
from tests.tcp_server import free_port

LAG = 0.5
WHICH = "SELECT pg_is_in_recovery() AS standby"
COUNT = "SELECT count(*) AS n, pg_is_in_recovery() AS standby FROM documents_all_minilm_l6_v2"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, short_folder: Path) -> Iterator[Pair]:
    with pair(short_folder / "pair") as made:
        yield made


@pytest.fixture
def database(servers: Pair) -> Iterator[Database]:
    """The primary with its standby, at most half a second behind; nothing written, and the standby seen."""
    with psycopg.connect(servers.primary.tcp(), autocommit=True) as connection:
        connection.execute("TRUNCATE documents_all_minilm_l6_v2 CASCADE")
    servers.caught_up()
    made = Database(servers.url).for_tenant("default").reading_from(servers.read_url, max_lag=LAG)
    eventually(lambda: on_standby(made))
    yield made
    servers.standby.execute("SELECT pg_wal_replay_resume()")
    made.close()


def eventually(condition: Callable[[], Any], *, seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def on_standby(database: Database) -> bool:
    return bool(database.for_reading().read(WHICH)[0]["standby"])


def replica_of(database: Database) -> Replica:
    assert database.replica is not None
    return database.replica


def write(database: Database, name: str) -> None:
    with database.connection() as connection:
        connection.execute(OTHER, (name,))


def write_elsewhere(servers: Pair, name: str) -> None:
    with psycopg.connect(servers.primary.tcp(), autocommit=True) as connection:
        connection.execute(OTHER, (name,))


async def test_searches_go_to_the_standby_and_all_else_to_the_primary(servers: Pair, database: Database) -> None:
    reading = database.for_reading()
    assert reading.read(WHICH) == [{"standby": True}]
    assert await reading.read_async(WHICH) == [{"standby": True}]
    assert database.read(WHICH) == [{"standby": False}]
    assert await database.read_async(WHICH) == [{"standby": False}]
    with database.connection() as connection:
        assert connection.execute(WHICH).fetchall() == [{"standby": False}]
    await database.close_async()


def test_without_a_standby_there_is_one_database() -> None:
    database = Database("postgresql://u@h/d").reading_from(None, max_lag=5.0)
    assert database.for_reading() is database


async def test_own_writes_are_seen_at_once(servers: Pair, database: Database) -> None:
    """The standby has replayed nothing of them, and comes to be read again when it has."""
    reading = database.for_reading()
    servers.standby.execute("SELECT pg_wal_replay_pause()")
    for number in range(1, 4):
        write(database, str(number))
        assert reading.read(COUNT) == [{"n": number, "standby": False}]
        assert await reading.read_async(COUNT) == [{"n": number, "standby": False}]
    servers.standby.execute("SELECT pg_wal_replay_resume()")
    eventually(lambda: reading.read(COUNT) == [{"n": 3, "standby": True}])
    await database.close_async()


def test_one_tenants_writes_send_no_other_tenant_to_the_primary(servers: Pair, database: Database) -> None:
    create_tenant(Database(servers.primary.tcp()), "acme")
    servers.caught_up()
    acme = database.for_tenant("acme")
    eventually(lambda: on_standby(acme))
    servers.standby.execute("SELECT pg_wal_replay_pause()")
    write(database, "1")
    assert database.for_reading().read(COUNT) == [{"n": 1, "standby": False}]
    assert acme.for_reading().read(WHICH) == [{"standby": True}]


def test_tenants_are_kept_apart_on_the_standby(servers: Pair, database: Database) -> None:
    create_tenant(Database(servers.primary.tcp()), "acme")
    write(database, "1")
    count = (
        f'SELECT count(*) AS n, pg_is_in_recovery() AS standby FROM "{schema_of("acme")}".documents_all_minilm_l6_v2'  # noqa: S608
    )
    acme = database.for_tenant("acme").for_reading()
    eventually(lambda: acme.read(count) == [{"n": 0, "standby": True}])
    eventually(lambda: database.for_reading().read(COUNT) == [{"n": 1, "standby": True}])
    with pytest.raises(DatabaseError, match="permission denied"):
        database.for_reading().read(count)


def test_what_others_write_is_seen_within_the_lag(servers: Pair, database: Database) -> None:
    reading = database.for_reading()
    servers.standby.execute("SELECT pg_wal_replay_pause()")
    write_elsewhere(servers, "1")
    written = time.monotonic()
    assert reading.read(COUNT) == [{"n": 0, "standby": True}]
    while time.monotonic() < written + 3 * LAG:
        began = time.monotonic()
        found = reading.read(COUNT)
        assert found == [{"n": 1, "standby": False}] or began < written + LAG
    assert found == [{"n": 1, "standby": False}]
    assert replica_of(database).state == "behind"


def test_a_standby_is_not_behind_because_nothing_is_written(database: Database) -> None:
    before = Counter(replica_of(database).reads)
    until = time.monotonic() + 3 * LAG
    while time.monotonic() < until:
        database.for_reading().read(WHICH)
        time.sleep(0.02)
    reads = Counter(replica_of(database).reads) - before
    assert set(reads) == {("standby", "fresh"), ("primary", "position")}
    assert reads["primary", "position"] < 0.2 * reads["standby", "fresh"]


def test_a_search_is_one_round_trip(servers: Pair, database: Database) -> None:
    fill(store_on(servers, max_lag=60), 50)
    servers.caught_up()
    with relayed(servers.standby.conninfo(owner=True)) as (through, relay):
        store = SynapseDocumentStore(
            connection_string=Secret.from_token(servers.url),
            read_connection_string=Secret.from_token(through),
            max_lag=60,
        )
        replica = store.reading.replica  # type: ignore[union-attr]
        eventually(lambda: store.dense_search([0.1] * 384) and replica.reads["standby", "fresh"])
        time.sleep(0.3)  # whoever looked for it says goodbye
        before, answered = relay.round_trips, replica.reads["standby", "fresh"]
        for _ in range(10):
            assert len(store.dense_search([0.1] * 384)) == 10
        assert replica.reads["standby", "fresh"] == answered + 10
        assert relay.round_trips == before + 10
        replica.close()


def test_what_the_standby_must_not_finish_is_asked_of_the_primary(servers: Pair, database: Database) -> None:
    """The rows that it reads are removed on the primary, and the standby puts that off for 0.1 s."""
    for number in range(100):
        write_elsewhere(servers, str(number))
    servers.caught_up()
    reading = database.for_reading()
    eventually(lambda: reading.read(COUNT) == [{"n": 100, "standby": True}])
    with ThreadPoolExecutor() as threads:
        found = threads.submit(reading.read, f"{COUNT} CROSS JOIN (SELECT pg_sleep(1.5)) AS waited")
        time.sleep(0.2)
        with psycopg.connect(servers.primary.tcp(), autocommit=True) as connection:
            connection.execute("DELETE FROM documents_all_minilm_l6_v2")
            connection.execute("VACUUM documents_all_minilm_l6_v2")
        assert found.result() == [{"n": 0, "standby": False}]
    assert replica_of(database).reads["primary", "conflict"] == 1


def test_what_the_standby_does_not_know_yet_is_asked_of_the_primary(servers: Pair, database: Database) -> None:
    late = database.reading_from(servers.read_url, max_lag=60)
    eventually(lambda: on_standby(late))
    servers.standby.execute("SELECT pg_wal_replay_pause()")
    create_tenant(Database(servers.primary.tcp()), "newcomer")
    assert late.for_tenant("newcomer").for_reading().read(COUNT) == [{"n": 0, "standby": False}]
    assert replica_of(late).reads["primary", "refused"] == 1
    with pytest.raises(DatabaseError, match="there is no 'nobody'"):
        late.for_tenant("nobody").for_reading().read(COUNT)


def test_a_timeout_on_the_standby_is_not_waited_for_twice(database: Database) -> None:
    before = Counter(replica_of(database).reads)
    with pytest.raises(DatabaseError, match="statement timeout"):
        database.for_reading().read("SELECT pg_sleep(30)", settings={"statement_timeout": "200ms"})
    assert Counter(replica_of(database).reads) == before


def test_another_server_is_not_read_from(servers: Pair, server: EmbeddedServer | None) -> None:
    if server is None:
        pytest.skip("needs a second server of ours")
    database = Database(servers.url).reading_from(server.conninfo(), max_lag=1.0)
    replica = replica_of(database)
    database.for_reading().read(WHICH)
    eventually(lambda: "is another server" in str(replica.standby.trouble))
    assert database.for_reading().read(WHICH) == [{"standby": False}]
    assert replica.state == "away"
    database.close()


@pytest.mark.parametrize("attributes", ["standby", "prefer-standby", "any"])
def test_several_hosts_of_which_one_is_away(servers: Pair, attributes: str) -> None:
    url = make_conninfo(
        servers.read_url,
        host="127.0.0.1,127.0.0.1",
        port=f"{free_port()},{servers.standby.port}",
        target_session_attrs=attributes,
        load_balance_hosts="random",
    )
    database = Database(servers.url).reading_from(url, max_lag=5.0)
    eventually(lambda: on_standby(database))
    database.close()


async def test_the_standby_is_stopped_and_comes_back(servers: Pair, database: Database) -> None:
    reading = database.for_reading()
    assert await reading.read_async(WHICH) == [{"standby": True}]
    servers.standby.kill()
    began = time.monotonic()
    assert await reading.read_async(WHICH) == [{"standby": False}]
    assert [reading.read(WHICH) for _ in range(20)] == [[{"standby": False}]] * 20
    assert time.monotonic() - began < 2
    assert (lag(database)[-1].state, replica_of(database).state) == ("away", "away")
    servers.standby.go_on()
    eventually(lambda: on_standby(database), seconds=5)
    began = time.monotonic()
    assert {"standby": True} in [(await reading.read_async(WHICH))[0] for _ in range(3)]
    assert time.monotonic() - began < 1
    await database.close_async()


async def test_the_primary_is_stopped_and_comes_back(servers: Pair, database: Database) -> None:
    reading = database.for_reading()
    write(database, "1")
    eventually(lambda: reading.read(COUNT) == [{"n": 1, "standby": True}])
    servers.primary.kill()
    try:
        until = time.monotonic() + 2 * LAG  # longer than what it knows of the primary is worth
        while time.monotonic() < until:
            assert reading.read(COUNT) == [{"n": 1, "standby": True}]
            assert await reading.read_async(COUNT) == [{"n": 1, "standby": True}]
        assert replica_of(database).reads["standby", "primary away"] > 0
    finally:
        servers.primary.go_on()
    write(database, "2")
    assert reading.read(COUNT) == [{"n": 2, "standby": False}]
    eventually(lambda: reading.read(COUNT) == [{"n": 2, "standby": True}], seconds=5)
    await database.close_async()


async def test_keys_are_known_while_the_primary_is_away(servers: Pair, database: Database) -> None:
    """The primary says who a key is; only when it cannot, the standby does."""
    accounts = Accounts(database)
    accounts.create_user("default", "ann")
    good, _ = accounts.create_key("default", "ann", label="good")
    revoked, key = accounts.create_key("default", "ann", label="revoked")
    servers.caught_up()
    servers.standby.execute("SELECT pg_wal_replay_pause()")
    assert await accounts.authenticate_key_async(revoked)
    accounts.revoke_key("default", key.id)
    assert await accounts.authenticate_key_async(revoked) is None
    servers.standby.execute("SELECT pg_wal_replay_resume()")
    servers.caught_up()
    servers.primary.kill()
    try:
        identity = await accounts.authenticate_key_async(good)
        assert identity is not None
        assert identity.user_name == "ann"
        assert await accounts.authenticate_key_async(revoked) is None
    finally:
        servers.primary.go_on()
    accounts.delete_user("default", "ann")
    assert await accounts.authenticate_key_async(good) is None
    await database.close_async()


def test_a_read_that_takes_long_is_left_alone(database: Database) -> None:
    assert database.for_reading().read("SELECT pg_is_in_recovery() AS standby FROM pg_sleep(1.7)") == [
        {"standby": True}
    ]


def test_the_lag_is_told(servers: Pair, database: Database) -> None:
    streaming = lag(database)
    assert [(one.seen_by, one.state) for one in streaming] == [("primary", "hidden"), ("standby", "streaming")]
    assert (streaming[-1].bytes, streaming[-1].seconds, streaming[-1].trouble) == (0, 0.0, None)
    servers.standby.execute("SELECT pg_wal_replay_pause()")
    write_elsewhere(servers, "1")
    time.sleep(0.3)
    paused = lag(database)[-1]
    assert paused.state == "paused"
    assert paused.bytes is not None
    assert paused.bytes > 0
    assert paused.seconds is not None
    assert paused.seconds > 0.2
    owner = lag(Database(servers.primary.tcp()))
    assert [(one.seen_by, one.state) for one in owner] == [("primary", "streaming")]
    assert owner[0].bytes is not None


def test_the_settings_lead_to_the_standby(servers: Pair, database: Database) -> None:
    settings = Settings(database_url=servers.url, database_read_url=servers.read_url, database_max_lag_seconds=2.0)
    opened = open_database(settings)
    assert isinstance(opened.for_reading(), Reader)
    eventually(lambda: on_standby(opened))
    assert replica_of(opened).max_lag == 2.0
    database_for(servers.url).close()


def test_a_standby_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="DATABASE_URL is not set"):
        open_database(Settings(database_read_url="postgresql://h/d"))


def test_a_store_with_a_standby_is_saved(monkeypatch: pytest.MonkeyPatch, servers: Pair, database: Database) -> None:
    monkeypatch.setenv("DATABASE_URL", servers.url)
    monkeypatch.setenv("DATABASE_READ_URL", servers.read_url)
    made = SynapseDocumentStore(read_connection_string=Secret.from_env_var("DATABASE_READ_URL"), max_lag=3.0)
    loaded = SynapseDocumentStore.from_dict(made.to_dict())
    assert loaded.to_dict() == made.to_dict()
    loaded.write_documents([Document(id="1", content="written")])
    assert loaded.count_documents() == 1
    eventually(lambda: loaded.reading.read(COUNT) == [{"n": 1, "standby": True}])
    loaded.close()
