"""Users, passwords and keys: who is let in, who is not, and what is kept of their secrets."""

from __future__ import annotations

import asyncio
import hashlib
import statistics
import time
from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest

from database import accounts as module
from database.accounts import Accounts, Identity
from database.connection import Database
from database.conversations import Conversations
from database.errors import ConfigurationError, DatabaseUnavailableError, InvalidInputError, NotFoundError
from tests.support.people import TABLES, counts, empty, other_tenant, stored

PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def acme(owner: Database) -> Iterator[str]:
    with other_tenant(owner) as name:
        yield name


@pytest.fixture
def accounts(session_database: Database, owner_conninfo: str) -> Accounts:
    empty(owner_conninfo)
    return Accounts(session_database)


def shown(accounts: Accounts, text: str) -> Identity | None:
    """Whose key the service takes it for."""
    return asyncio.run(accounts.authenticate_key_async(text))


def logged_in(accounts: Accounts, login: str, password: str) -> Identity | None:
    return asyncio.run(accounts.authenticate_password_async(login, password))


class TestKeys:
    def test_a_key_says_who_asks(self, accounts: Accounts, acme: str) -> None:
        user = accounts.create_user(acme, "ann")
        text, key = accounts.create_key(acme, "ann", label="laptop", daily_tokens=5, requests_per_minute=7)
        assert shown(accounts, text) == Identity(
            tenant=acme, user_id=user.user_id, user_name="ann", key_id=key.id, daily_tokens=5, requests_per_minute=7
        )
        (listed,) = accounts.list_keys(acme)
        assert (listed.label, listed.user_name, listed.revoked_at) == ("laptop", "ann", None)
        assert accounts.list_keys("default") == []

    def test_nothing_that_opens_is_stored(self, accounts: Accounts, owner_conninfo: str) -> None:
        accounts.create_user("default", "ann")
        text, key = accounts.create_key("default", "ann", label="laptop")
        head, secret = text.split(".")
        assert (head, len(secret)) == ("synapse_default", 43)
        (row,) = stored(owner_conninfo, "api_keys")
        assert row["secret_hash"] == hashlib.sha256(secret.encode()).digest()
        assert row["prefix"] == key.prefix == secret[:6]
        assert secret[:7] not in repr(row) + repr(key)

    @pytest.mark.parametrize(
        "changed",
        [
            lambda text: "",
            lambda text: text[:-1],
            lambda text: text + "\n",
            lambda text: text[:-1] + ("A" if text[-1] != "A" else "B"),
            lambda text: text.replace("default", "acme"),
            lambda text: text.replace("default", "nobody"),
            lambda text: text.replace("default", "Default"),
            lambda text: text.replace("default", "a' OR true --"),
            lambda text: text.replace("default", "a" * 1000),
            lambda text: text.split(".")[1],
            lambda text: "synapse_default." + "\0" * 43,
            lambda text: "synapse_default." + "\ud800" * 43,
            lambda text: "synapse_default." + "٣" * 43,
        ],
    )
    def test_what_is_no_key_of_ours(self, accounts: Accounts, acme: str, changed: object) -> None:
        accounts.create_user("default", "ann")
        text, _ = accounts.create_key("default", "ann", label="")
        assert shown(accounts, text) is not None
        assert shown(accounts, changed(text)) is None  # type: ignore[operator]

    def test_a_revoked_key_stops_at_once(self, accounts: Accounts) -> None:
        accounts.create_user("default", "ann")
        text, key = accounts.create_key("default", "ann", label="")
        assert shown(accounts, text)
        revoked = accounts.revoke_key("default", key.id)
        assert shown(accounts, text) is None
        assert revoked.revoked_at is not None
        assert accounts.revoke_key("default", key.id).revoked_at == revoked.revoked_at

    def test_nobody_revokes_another_tenants_key(self, accounts: Accounts, acme: str) -> None:
        accounts.create_user("default", "ann")
        text, key = accounts.create_key("default", "ann", label="")
        for tenant, identifier in ((acme, key.id), ("default", uuid4())):
            with pytest.raises(NotFoundError, match="A key"):
                accounts.revoke_key(tenant, identifier)
        assert shown(accounts, text)

    def test_the_last_use_is_noted_once_a_minute(self, accounts: Accounts, owner_conninfo: str) -> None:
        accounts.create_user("default", "ann")
        text, key = accounts.create_key("default", "ann", label="")
        assert key.last_used_at is None
        shown(accounts, text)
        first = accounts.list_keys("default")[0].last_used_at
        assert first is not None
        shown(accounts, text)
        assert accounts.list_keys("default")[0].last_used_at == first
        with psycopg.connect(owner_conninfo) as connection:
            connection.execute("UPDATE api_keys SET last_used_at = now() - interval '61 seconds'")
        shown(accounts, text)
        assert accounts.list_keys("default")[0].last_used_at > first

    def test_the_lookup_is_on_an_index(self, accounts: Accounts, owner_conninfo: str) -> None:
        accounts.create_user("default", "ann")
        with psycopg.connect(owner_conninfo, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO api_keys (tenant, user_id, label, secret_hash, prefix)"
                " SELECT tenant, id, '', sha256(n::text::bytea), '' FROM users, generate_series(1, 5000) AS n"
            )
            connection.execute("ANALYZE api_keys")
        with accounts._connection("default") as connection_:
            assert connection_.execute("SELECT current_user AS name").fetchall() == [{"name": "synapse_tenant_default"}]
            statement = f"EXPLAIN {module._SQL['authenticate_key']}"
            plan = [row["QUERY PLAN"] for row in connection_.execute(statement, {"secret_hash": b"x" * 32}).fetchall()]
        assert sum("api_keys_tenant_secret_hash_key" in line for line in plan) == 2, plan
        assert not any("Seq Scan on api_keys" in line for line in plan), plan

    def test_no_user_no_key(self, accounts: Accounts) -> None:
        with pytest.raises(NotFoundError, match="'ann' was expected in the tenant default"):
            accounts.create_key("default", "ann", label="")

    async def test_nobody_can_tell_without_a_database(self) -> None:
        away = Accounts(Database("postgresql://nobody@127.0.0.1:1/none"))
        with pytest.raises(DatabaseUnavailableError):
            await away.authenticate_key_async("synapse_default." + "A" * 43)
        assert await away.authenticate_key_async("nonsense") is None


class TestPasswords:
    def test_who_logs_in(self, accounts: Accounts, acme: str) -> None:
        accounts.create_user("default", "ann", password=PASSWORD)
        user = accounts.create_user(acme, "bob", password=PASSWORD)
        assert logged_in(accounts, "ann", PASSWORD) == accounts.identity("default", "ann")
        assert logged_in(accounts, "bob@acme", PASSWORD) == user
        for login in (
            "bob",
            "ann@acme",
            "ann@nobody",
            "ann@",
            "@",
            "",
            "ann@default@acme",
            "ann@A'; --",
            "a\0",
            "\ud800",
        ):
            assert logged_in(accounts, login, PASSWORD) is None, login

    @pytest.mark.parametrize("password", ["", PASSWORD + " ", PASSWORD.upper(), "\0", "\ud800", "x" * 1_000_000])
    def test_another_password(self, accounts: Accounts, password: str) -> None:
        accounts.create_user("default", "ann", password=PASSWORD)
        assert logged_in(accounts, "ann", password) is None

    def test_without_a_password_nobody_logs_in(self, accounts: Accounts) -> None:
        accounts.create_user("default", "ann")
        assert logged_in(accounts, "ann", "") is None
        accounts.set_password("default", "ann", PASSWORD)
        assert logged_in(accounts, "ann", PASSWORD)
        accounts.set_password("default", "ann", None)
        assert logged_in(accounts, "ann", PASSWORD) is None

    def test_only_a_hash_is_stored(self, accounts: Accounts, owner_conninfo: str) -> None:
        accounts.create_user("default", "ann", password=PASSWORD)
        (row,) = stored(owner_conninfo, "users")
        assert row["password_hash"].startswith("$argon2id$")
        assert PASSWORD not in repr(row) + repr(accounts.list_users("default"))

    def test_unknown_users_take_as_long(self, accounts: Accounts) -> None:
        accounts.create_user("default", "ann", password=PASSWORD)
        logged_in(accounts, "nobody", PASSWORD)

        def median(login: str) -> float:
            took = []
            for _ in range(5):
                began = time.perf_counter()
                assert logged_in(accounts, login, "wrong password") is None
                took.append(time.perf_counter() - began)
            return statistics.median(took)

        known = median("ann")
        for login in ("nobody", "ann@nobody", "\0"):
            assert median(login) > known / 3, login

    @pytest.mark.parametrize("password", ["", "seven77", "x" * 1001, "eight\0\0\0", "eight\ud800\ud800\ud800"])
    def test_passwords_that_are_none(self, accounts: Accounts, password: str) -> None:
        with pytest.raises(InvalidInputError, match="A password must"):
            accounts.create_user("default", "ann", password=password)
        assert accounts.list_users("default") == []

    def test_where_argon2_is_missing(self, monkeypatch: pytest.MonkeyPatch, accounts: Accounts) -> None:
        module._hasher.cache_clear()
        monkeypatch.setitem(__import__("sys").modules, "argon2", None)
        with pytest.raises(ConfigurationError, match=r"requirements-serve\.txt"):
            accounts.create_user("default", "ann", password=PASSWORD)


class TestUsers:
    @pytest.mark.parametrize("name", ["", " ann", "ann ", "ann@acme", "a\nb", "a\0b", "a\x1b[31m", "\ud800", "x" * 201])
    def test_names_that_are_none(self, accounts: Accounts, name: str) -> None:
        with pytest.raises(InvalidInputError, match="A user's name"):
            accounts.create_user("default", name)

    @pytest.mark.parametrize("name", ["a", "Ann Müller", "王小明", "x" * 200, "'; DROP TABLE users; --", "%s"])
    def test_names(self, accounts: Accounts, name: str) -> None:
        accounts.create_user("default", name)
        assert [user.name for user in accounts.list_users("default")] == [name]

    def test_a_name_is_taken_once_per_tenant(self, accounts: Accounts, acme: str) -> None:
        one = accounts.create_user("default", "ann")
        other = accounts.create_user(acme, "ann")
        assert one.user_id != other.user_id
        with pytest.raises(InvalidInputError, match="there is a user 'ann'"):
            accounts.create_user("default", "ann")
        assert accounts.ensure_user("default", "ann") == one
        assert accounts.ensure_user("default", "bob") == accounts.ensure_user("default", "bob")

    def test_deleting_leaves_nothing(self, accounts: Accounts, acme: str, owner_conninfo: str) -> None:
        for tenant in ("default", acme):
            accounts.create_user(tenant, "ann", password=PASSWORD)
            accounts.create_key(tenant, "ann", label="")
        assert accounts.holdings("default", "ann")["keys"] == 1
        gone = accounts.delete_user("default", "ann")
        assert gone == {"conversations": 0, "messages": 0, "feedback": 0, "usage": 0, "keys": 1}
        assert {row["tenant"] for table in TABLES for row in stored(owner_conninfo, table)} == {acme}
        assert counts(owner_conninfo)["users"] == 1
        for act in (accounts.delete_user, accounts.holdings, accounts.identity):
            with pytest.raises(NotFoundError):
                act("default", "ann")


def test_the_owner_takes_the_tenants_role_too(
    accounts: Accounts, owner: Database, acme: str, owner_conninfo: str
) -> None:
    """A superuser would else make rows of no tenant, and see those of all."""
    accounts.create_user(acme, "ann")
    as_owner = Accounts(owner)
    made = as_owner.create_user("default", "bob")
    assert [user.name for user in as_owner.list_users("default")] == ["bob"]
    assert as_owner.list_users(acme) == accounts.list_users(acme)
    conversations = Conversations(owner)
    session = conversations.create_session(made, title="Bob's")
    assert [one.id for one in conversations.sessions(made)] == [session.id]
    assert {row["tenant"] for row in stored(owner_conninfo, "chat_sessions")} == {"default"}
    conversations.close()
