"""Conversations: stored exactly, found by whose they are and by nobody else, whatever is tried."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, create_engine, event, text

from database.accounts import Accounts, Identity
from database.connection import Database, parse_conninfo
from database.conversation_models import Base
from database.conversations import Conversations, TurnAnswer, Usage
from database.errors import DatabaseError, DatabaseUnavailableError, InvalidInputError, NotFoundError
from database.usage import usage_by_day
from tests.support.people import TABLES, counts, empty, other_tenant, stored

ANSWER = TurnAnswer(
    text="24 months. [1]",
    supported=True,
    extractive=False,
    citations=[{"number": 1, "source": "warranty.md", "span": [0, 9], "quote": "24 months"}],
    model="fake",
    timings_ms={"total": 12.5},
)
HOSTILE = [
    "'; DROP TABLE chat_messages; --",
    "%s %(x)s :role {} \\x00 \\",
    "👩‍👩‍👧 \u202eright to left\u202c \ufeff \x1b[31m \x07 \uffff",
    "a" * 1_000_000,
    "\U0001d518\n\r\n\t " * 1000,
    "\u0000".encode("unicode_escape").decode(),
]
UNSTORABLE = ["with \0 NUL", "half a pair \ud83d", "\udfff"]


@pytest.fixture(scope="module")
def acme(owner: Database) -> Iterator[str]:
    with other_tenant(owner) as name:
        yield name


@pytest.fixture(scope="module")
def shared(session_database: Database) -> Iterator[Conversations]:
    conversations = Conversations(session_database)
    yield conversations
    conversations.close()


@pytest.fixture
def conversations(shared: Conversations, owner_conninfo: str) -> Conversations:
    empty(owner_conninfo)
    return shared


@pytest.fixture
def accounts(session_database: Database) -> Accounts:
    return Accounts(session_database)


@pytest.fixture
def ann(conversations: Conversations, accounts: Accounts) -> Identity:
    return accounts.create_user("default", "ann")


@pytest.fixture
def engine_connection(owner_conninfo: str) -> Iterator[Connection]:
    """SQLAlchemy's view of the database, as the owner; nothing of it stays."""
    engine = create_engine("postgresql+psycopg://", connect_args=parse_conninfo(owner_conninfo))
    with engine.connect() as connection:
        yield connection
    engine.dispose()


class TestModels:
    def test_alembic_finds_no_difference(self, engine_connection: Connection) -> None:
        def ours(name: str | None, kind: str, _: object) -> bool:
            return kind != "table" or name in TABLES

        options = {"include_name": ours, "compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(engine_connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []
        assert set(Base.metadata.tables) == set(TABLES)

    def test_nor_does_the_catalog(self, engine_connection: Connection) -> None:
        """Made from the models in a schema of their own, the tables have the same columns, constraints and indexes."""

        def catalog(schema: str) -> dict[str, list[Any]]:
            parameters = {"schema": schema, "tables": list(TABLES)}
            found = {name: engine_connection.execute(text(query), parameters).all() for name, query in CATALOG.items()}
            return {
                name: sorted(re.sub(r"\b(?:public|of_models)\.", "", str(row)) for row in rows)
                for name, rows in found.items()
            }

        engine_connection.execute(text("CREATE SCHEMA of_models"))
        engine_connection.execute(text("SET LOCAL search_path = of_models, public"))
        Base.metadata.create_all(engine_connection, checkfirst=False)
        # Both are looked at from elsewhere, so that every name is written with its schema.
        engine_connection.execute(text("SET LOCAL search_path = pg_catalog"))
        by_sql, by_models = catalog("public"), catalog("of_models")
        for name in CATALOG:
            assert by_sql[name] == by_models[name], name
        assert sum(map(len, by_sql.values())) > 60

    def test_the_tables_are_closed(self, engine_connection: Connection) -> None:
        """Forced policies, and no grants but to the tenants."""
        me = engine_connection.execute(text("SELECT current_user")).scalar_one()
        for table in TABLES:
            row = engine_connection.execute(text(CLOSED), {"table": table}).one()
            assert row == (True, True, ["synapse_tenant_rows"], sorted([me, "synapse_tenant"])), table


CATALOG = {
    "columns": """
        SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
               pg_get_expr(d.adbin, d.adrelid)
          FROM pg_attribute a
          JOIN pg_class c ON c.oid = a.attrelid AND c.relkind = 'r'
          LEFT JOIN pg_attrdef d ON (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
         WHERE c.relnamespace = (:schema)::regnamespace AND c.relname = ANY (:tables) AND a.attnum > 0""",
    "constraints": """
        SELECT c.relname, k.contype, pg_get_constraintdef(k.oid)
          FROM pg_constraint k
          JOIN pg_class c ON c.oid = k.conrelid
         WHERE c.relnamespace = (:schema)::regnamespace AND c.relname = ANY (:tables)""",
    "indexes": """
        SELECT pg_get_indexdef(i.indexrelid)
          FROM pg_index i
          JOIN pg_class c ON c.oid = i.indrelid
         WHERE c.relnamespace = (:schema)::regnamespace AND c.relname = ANY (:tables)""",
}
CLOSED = """
    SELECT c.relrowsecurity, c.relforcerowsecurity,
           (SELECT array_agg(polname::text) FROM pg_policy WHERE polrelid = c.oid),
           (SELECT array_agg(DISTINCT grantee::regrole::text ORDER BY grantee::regrole::text)
              FROM aclexplode(c.relacl))
      FROM pg_class c WHERE c.oid = to_regclass(:table)"""

REACHING: dict[str, Callable[[Conversations, Identity, UUID, UUID], Any]] = {
    "session": lambda c, who, session, _: c.session(who, session),
    "messages": lambda c, who, session, _: c.messages(who, session),
    "last messages": lambda c, who, session, _: c.messages(who, session, last=1),
    "rename": lambda c, who, session, _: c.rename(who, session, title="mine"),
    "delete": lambda c, who, session, _: c.delete(who, session),
    "add_turn": lambda c, who, session, _: c.add_turn(who, session, question="?", answer=ANSWER),
    "add_turn again": lambda c, who, session, message: c.add_turn(
        who, session, question="?", answer=ANSWER, message_id=message
    ),
    "sessions before": lambda c, who, session, _: c.sessions(who, before=session),
    "message": lambda c, who, _, message: c.message(who, message),
    "give_feedback": lambda c, who, _, message: c.give_feedback(who, message, mark=1),
    "session_async": lambda c, who, session, _: in_loop(c, lambda: c.session_async(who, session)),
    "messages_async": lambda c, who, session, _: in_loop(c, lambda: c.messages_async(who, session)),
    "rename_async": lambda c, who, session, _: in_loop(c, lambda: c.rename_async(who, session, title="mine")),
    "delete_async": lambda c, who, session, _: in_loop(c, lambda: c.delete_async(who, session)),
    "add_turn_async": lambda c, who, session, _: in_loop(
        c, lambda: c.add_turn_async(who, session, question="?", answer=ANSWER)
    ),
    "message_async": lambda c, who, _, message: in_loop(c, lambda: c.message_async(who, message)),
    "give_feedback_async": lambda c, who, _, message: in_loop(
        c, lambda: c.give_feedback_async(who, message, mark=1, comment="mine")
    ),
}
"""Every way to a conversation or a message by its id."""


def in_loop(conversations: Conversations, call: Callable[[], Any]) -> Any:
    async def run() -> Any:
        try:
            return await call()
        finally:
            await conversations.close_async()

    return asyncio.run(run())


class TestWhose:
    @pytest.mark.parametrize("way", REACHING)
    def test_what_is_anothers_is_not_there(
        self, conversations: Conversations, accounts: Accounts, ann: Identity, acme: str, owner_conninfo: str, way: str
    ) -> None:
        session = conversations.create_session(ann, title="Ann's")
        message = conversations.add_turn(ann, session.id, question="How long?", answer=ANSWER)
        before = {table: stored(owner_conninfo, table) for table in TABLES if table != "users"}
        bob, eve = accounts.create_user("default", "bob"), accounts.create_user(acme, "eve")
        forged = replace(ann, tenant=acme)
        said = set()
        for who in (bob, eve, forged):
            for place in ((session.id, message.id), (uuid4(), uuid4())):
                with pytest.raises(NotFoundError) as caught:
                    REACHING[way](conversations, who, *place)
                said.add(re.sub(r"[0-9a-f-]{36}", "ID", str(caught.value)))
        assert len(said) == 1
        assert {table: stored(owner_conninfo, table) for table in before} == before

    def test_nobody_takes_anothers_id(
        self, conversations: Conversations, accounts: Accounts, ann: Identity, acme: str
    ) -> None:
        session = conversations.create_session(ann, title="Ann's")
        with pytest.raises(NotFoundError):
            conversations.create_session(accounts.create_user("default", "bob"), session_id=session.id)
        eve = accounts.create_user(acme, "eve")
        assert conversations.create_session(eve, session_id=session.id, title="Eve's").title == "Eve's"
        again = conversations.create_session(ann, session_id=session.id, title="other")
        assert again.title == "Ann's"
        assert [one.title for one in conversations.sessions(eve)] == ["Eve's"]

    def test_whoever_claims_another_tenant_has_nothing_there(
        self, conversations: Conversations, ann: Identity, acme: str, owner_conninfo: str
    ) -> None:
        session = conversations.create_session(ann)
        conversations.add_turn(ann, session.id, question="How long?", answer=ANSWER, usage=Usage(tokens_in=5))
        forged = replace(ann, tenant=acme)
        assert conversations.sessions(forged) == []
        assert conversations.tokens_today(forged) == 0
        assert set(conversations.delete_user_data(forged).values()) == {0}
        for act in (conversations.create_session, conversations.export_user):
            with pytest.raises((DatabaseError, NotFoundError)):
                act(forged)
        with pytest.raises(DatabaseError):
            conversations.log_usage(forged, Usage())
        assert counts(owner_conninfo)["chat_messages"] == 2

    def test_a_tenant_that_is_none(self, conversations: Conversations, ann: Identity) -> None:
        with pytest.raises(DatabaseError, match="nobody"):
            conversations.sessions(replace(ann, tenant="nobody"))
        with pytest.raises(InvalidInputError):
            conversations.sessions(replace(ann, tenant="default'; --"))

    def test_without_a_tenant_nothing_is_seen(self, conversations: Conversations, ann: Identity) -> None:
        conversations.create_session(ann)
        with pytest.raises(DatabaseError, match="permission denied"):
            conversations.database.without_tenant().read("SELECT * FROM chat_sessions")


class TestTurns:
    def test_what_was_said(self, conversations: Conversations, ann: Identity) -> None:
        session = conversations.create_session(ann)
        conversations.add_turn(ann, session.id, question="How  long\nis it?", answer=ANSWER)
        conversations.add_turn(ann, session.id, question="And now?", answer=replace(ANSWER, interrupted=True))
        question, answer, *others = conversations.messages(ann, session.id)
        assert (question.role, question.content, question.position) == ("user", "How  long\nis it?", 1)
        assert (answer.role, answer.content, answer.position) == ("assistant", ANSWER.text, 2)
        assert (answer.citations, answer.model, answer.timings_ms) == (ANSWER.citations, "fake", {"total": 12.5})
        assert (answer.supported, answer.extractive, answer.interrupted) == (True, False, False)
        assert [(one.position, one.interrupted) for one in others] == [(3, False), (4, True)]
        assert [one.position for one in conversations.messages(ann, session.id, last=3)] == [2, 3, 4]
        found = conversations.session(ann, session.id)
        assert (found.title, found.message_count) == ("How long is it?", 4)
        assert found.updated_at > found.created_at

    def test_a_turn_that_begins_its_conversation(self, conversations: Conversations, ann: Identity) -> None:
        new = uuid4()
        question = "word " * 50
        message = conversations.add_turn(ann, new, question=question, answer=ANSWER, create=True)
        conversations.add_turn(ann, new, question="more", answer=ANSWER, create=True)
        found = conversations.session(ann, new)
        assert found.message_count == 4
        assert found.title.endswith("word …")
        assert len(found.title) <= 82
        assert message.session_id == new

    def test_a_turn_is_stored_once(self, conversations: Conversations, ann: Identity, owner_conninfo: str) -> None:
        session = conversations.create_session(ann)
        identifier = uuid4()
        for _ in range(2):
            message = conversations.add_turn(
                ann, session.id, question="?", answer=ANSWER, usage=Usage(), message_id=identifier
            )
            assert (message.id, message.content) == (identifier, ANSWER.text)
        assert conversations.session(ann, session.id).message_count == 2
        assert counts(owner_conninfo)["usage_logs"] == 1

    def test_all_or_nothing(self, conversations: Conversations, ann: Identity, owner_conninfo: str) -> None:
        session = conversations.create_session(ann)
        with pytest.raises(DatabaseError):
            conversations.add_turn(ann, session.id, question="?", answer=ANSWER, usage=Usage(tokens_in=-1))
        assert counts(owner_conninfo)["chat_messages"] == 0
        assert conversations.session(ann, session.id).message_count == 0

    def test_sixteen_at_once(self, conversations: Conversations, ann: Identity) -> None:
        session = conversations.create_session(ann)

        def write(writer: int) -> None:
            for n in range(5):
                answer = replace(ANSWER, text=f"to {writer}.{n}")
                conversations.add_turn(ann, session.id, question=f"{writer}.{n}", answer=answer)

        with ThreadPoolExecutor(16) as threads:
            list(threads.map(write, range(16)))
        check_turns(conversations.messages(ann, session.id), 80)

    async def test_sixteen_tasks_at_once(self, conversations: Conversations, ann: Identity) -> None:
        session = await conversations.create_session_async(ann)

        async def write(writer: int) -> None:
            for n in range(5):
                answer = replace(ANSWER, text=f"to {writer}.{n}")
                await conversations.add_turn_async(ann, session.id, question=f"{writer}.{n}", answer=answer)

        await asyncio.gather(*map(write, range(16)))
        check_turns(await conversations.messages_async(ann, session.id), 80)
        await conversations.close_async()

    def test_connections_that_were_cut(self, conversations: Conversations, ann: Identity, owner_conninfo: str) -> None:
        session = conversations.create_session(ann)
        with psycopg.connect(owner_conninfo, autocommit=True) as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'synapse_app'")
        conversations.add_turn(ann, session.id, question="?", answer=ANSWER)
        assert len(conversations.messages(ann, session.id)) == 2

    def test_no_database(self, ann: Identity) -> None:
        away = Conversations(Database("postgresql://nobody:s3cret@127.0.0.1:1/none"))
        with pytest.raises(DatabaseUnavailableError) as caught:
            away.add_turn(ann, uuid4(), question="a question", answer=ANSWER)
        assert "s3cret" not in str(caught.value) + repr(caught.value)


def check_turns(messages: list[Any], turns: int) -> None:
    """Nothing is lost, no place is given twice, and every answer follows its question."""
    assert [message.position for message in messages] == list(range(1, 2 * turns + 1))
    assert len({message.content for message in messages}) == 2 * turns
    for question, answer in zip(messages[::2], messages[1::2], strict=True):
        assert (question.role, answer.content) == ("user", f"to {question.content}")


class TestHostileText:
    @pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
    def test_it_is_stored_exactly(self, conversations: Conversations, ann: Identity, hostile: str) -> None:
        session = conversations.create_session(ann, title=hostile[:500])
        answer = replace(ANSWER, text=hostile, citations=[{"quote": hostile}])
        message = conversations.add_turn(ann, session.id, question=hostile, answer=answer)
        conversations.give_feedback(ann, message.id, mark=-1, comment=hostile)
        question, found = conversations.messages(ann, session.id)
        assert question.content == found.content == found.citations[0]["quote"] == hostile
        assert found.feedback is not None
        assert found.feedback.comment == hostile
        assert [one.title for one in conversations.sessions(ann, search=hostile[:100])] == [hostile[:500]]
        assert conversations.export_user(ann)["conversations"][0]["messages"][0]["content"] == hostile

    @pytest.mark.parametrize("hostile", UNSTORABLE)
    def test_what_postgresql_cannot_hold(
        self, conversations: Conversations, ann: Identity, owner_conninfo: str, hostile: str
    ) -> None:
        session = conversations.create_session(ann)
        message = conversations.add_turn(ann, session.id, question="?", answer=ANSWER)
        for act in (
            lambda: conversations.add_turn(ann, session.id, question=hostile, answer=ANSWER),
            lambda: conversations.give_feedback(ann, message.id, mark=1, comment=hostile),
            lambda: conversations.rename(ann, session.id, title=hostile),
            lambda: conversations.sessions(ann, search=hostile),
        ):
            with pytest.raises(InvalidInputError, match="must be text, but has"):
                act()
        answer = conversations.add_turn(ann, session.id, question="?", answer=replace(ANSWER, text=hostile))
        kept = conversations.message(ann, answer.id).content
        assert len(kept) == len(hostile)
        assert [a for a, b in zip(kept, hostile, strict=True) if a != b] in (["\ufffd"], ["?"])
        assert counts(owner_conninfo)["feedback"] == 0

    def test_a_title_too_long(self, conversations: Conversations, ann: Identity) -> None:
        with pytest.raises(InvalidInputError, match="at most 500 characters, but has 501"):
            conversations.create_session(ann, title="x" * 501)


class TestLists:
    def test_page_by_page(self, conversations: Conversations, ann: Identity, owner_conninfo: str) -> None:
        for n in range(7):
            conversations.create_session(ann, title=str(n))
        with psycopg.connect(owner_conninfo) as connection:  # the worst case for turning pages
            connection.execute("UPDATE chat_sessions SET updated_at = now() WHERE title < '4'")
        pages, before = [], None
        while page := conversations.sessions(ann, limit=2, before=before):
            pages.append([one.title for one in page])
            before = page[-1].id
        found = [title for page in pages for title in page]
        assert [len(page) for page in pages] == [2, 2, 2, 1]
        assert sorted(found) == list("0123456")
        assert found[4:] == ["6", "5", "4"]

    def test_search(self, conversations: Conversations, ann: Identity) -> None:
        for title, question in (("Dishwashers", "How long?"), ("100 %", "Price?"), ("1000", "Ümlaut_x")):
            session = conversations.create_session(ann, title=title)
            conversations.add_turn(ann, session.id, question=question, answer=ANSWER)

        def found(words: str) -> list[str]:
            return sorted(one.title for one in conversations.sessions(ann, search=words))

        assert found("dishwash") == ["Dishwashers"]
        assert found("HOW LONG") == ["Dishwashers"]
        assert found("%") == ["100 %"]
        assert found("ümlaut_") == ["1000"]
        assert found("24 months") == ["100 %", "1000", "Dishwashers"]
        assert found("nothing") == []

    def test_indexes_serve_the_application(
        self, conversations: Conversations, ann: Identity, owner_conninfo: str
    ) -> None:
        """The statements as they are sent, explained in the role that sends them, where tables are not small."""
        session = conversations.create_session(ann, title="Ann's")
        conversations.add_turn(ann, session.id, question="?", answer=ANSWER)
        with psycopg.connect(owner_conninfo, autocommit=True) as connection:
            for statement in CROWD:
                connection.execute(statement)
        sent: list[tuple[str, Any]] = []

        @event.listens_for(conversations._opened(), "before_cursor_execute")
        def note(_: Any, __: Any, statement: str, parameters: Any, ___: Any, ____: Any) -> None:
            sent.append((statement, parameters))

        conversations.sessions(ann, before=session.id)
        message = conversations.messages(ann, session.id, last=20)[-1]
        conversations.message(ann, message.id)
        conversations.tokens_today(ann)
        conversations.tokens_today(replace(ann, key_id=uuid4()))
        conversations.add_turn(ann, session.id, question="?", answer=ANSWER)
        event.remove(conversations._opened(), "before_cursor_execute", note)

        explained = [one for one in sent if one[0].startswith(("SELECT", "UPDATE")) and "set_config" not in one[0]]
        assert len(explained) >= 8
        with conversations._opened().begin() as connection:
            connection.execute(text("SELECT set_config('role', 'synapse_tenant_default', true)"))
            for statement, parameters in explained:
                plan = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).scalars().all()
                assert any("Index" in line for line in plan), (statement, plan)
                assert not any("Seq Scan" in line for line in plan), (statement, plan)


CROWD = [
    "INSERT INTO users (tenant, name) SELECT 'default', 'user ' || n FROM generate_series(1, 200) n",
    "INSERT INTO chat_sessions (tenant, user_id, title) SELECT tenant, id, n::text FROM users, generate_series(1, 20) n",
    "INSERT INTO chat_messages (tenant, session_id, position, role, content)"
    " SELECT tenant, id, 100 + n, 'user', 'x' FROM chat_sessions, generate_series(1, 5) n",
    "INSERT INTO usage_logs (tenant, user_id, kind) SELECT tenant, id, 'ask' FROM users, generate_series(1, 50) n",
    "INSERT INTO feedback (tenant, message_id, mark) SELECT tenant, id, 1 FROM chat_messages",
    *(f"ANALYZE {table}" for table in TABLES),
]


class TestFeedback:
    def test_a_mark_is_replaced(self, conversations: Conversations, ann: Identity, owner_conninfo: str) -> None:
        session = conversations.create_session(ann)
        message = conversations.add_turn(ann, session.id, question="?", answer=ANSWER)
        assert conversations.message(ann, message.id).feedback is None
        conversations.give_feedback(ann, message.id, mark=-1, comment="wrong")
        conversations.give_feedback(ann, message.id, mark=1)
        (row,) = stored(owner_conninfo, "feedback")
        assert (row["mark"], row["comment"], row["message_id"]) == (1, None, message.id)

    def test_what_is_no_mark(self, conversations: Conversations, ann: Identity) -> None:
        session = conversations.create_session(ann)
        conversations.add_turn(ann, session.id, question="?", answer=ANSWER)
        question, answer = conversations.messages(ann, session.id)
        for mark in (0, 2, -2):
            with pytest.raises(InvalidInputError, match="must be 1 or -1"):
                conversations.give_feedback(ann, answer.id, mark=mark)
        with pytest.raises(InvalidInputError, match="is a question"):
            conversations.give_feedback(ann, question.id, mark=1)


class TestUsage:
    def test_tokens_of_today(
        self, conversations: Conversations, accounts: Accounts, ann: Identity, owner_conninfo: str
    ) -> None:
        keys = [replace(ann, key_id=accounts.create_key("default", "ann", label="")[1].id) for _ in range(2)]
        bob = accounts.create_user("default", "bob")
        for who, tokens in ((ann, 1), (keys[0], 10), (keys[1], 100), (bob, 1000)):
            conversations.log_usage(who, Usage(tokens_in=tokens, tokens_out=tokens))
        spent = [conversations.tokens_today(who) for who in (*keys, ann, bob)]
        assert spent == [20, 200, 222, 2000]
        with psycopg.connect(owner_conninfo) as connection:
            connection.execute(
                "UPDATE usage_logs SET at = date_trunc('day', now(), 'UTC') - interval '1 microsecond' WHERE tokens_in = 10"
            )
            connection.execute("UPDATE usage_logs SET at = date_trunc('day', now(), 'UTC') WHERE tokens_in = 100")
        assert [conversations.tokens_today(who) for who in (*keys, ann)] == [0, 200, 202]

    def test_by_day(
        self, conversations: Conversations, accounts: Accounts, ann: Identity, acme: str, owner_conninfo: str
    ) -> None:
        session = conversations.create_session(ann)
        eve = accounts.create_user(acme, "eve")
        conversations.log_usage(eve, Usage(tokens_in=999))
        for usage in (
            Usage(tokens_in=10, tokens_out=1, supported=True),
            Usage(tokens_in=20, tokens_out=2, supported=False, tokens_estimated=True),
            Usage(tokens_in=30, interrupted=True),
        ):
            message = conversations.add_turn(ann, session.id, question="?", answer=ANSWER, usage=usage)
            conversations.give_feedback(ann, message.id, mark=1 if usage.supported else -1)
        (today,) = usage_by_day(conversations.database, "default", days=1)
        assert today.day == datetime.now(UTC).date()
        assert (today.questions, today.tokens_in, today.tokens_out, today.tokens_estimated) == (3, 60, 3, True)
        assert (today.empty_answers, today.interrupted, today.good_marks, today.bad_marks) == (1, 1, 1, 2)
        with psycopg.connect(owner_conninfo) as connection:
            connection.execute(
                "UPDATE usage_logs SET at = date_trunc('day', now(), 'UTC') - interval '1 s' WHERE tokens_in = 10"
            )
            connection.execute(
                "UPDATE feedback SET given_at = date_trunc('day', now(), 'UTC') - interval '25 h' WHERE mark = 1"
            )
        assert [(d.questions, d.good_marks) for d in usage_by_day(conversations.database, "default", days=3)] == [
            (0, 1),
            (1, 0),
            (2, 0),
        ]
        assert [d.tokens_in for d in usage_by_day(conversations.database, acme, days=1)] == [999]


class TestUsersData:
    @pytest.fixture
    def full(self, conversations: Conversations, accounts: Accounts, ann: Identity, acme: str) -> Identity:
        """Ann with something of everything; and others with the same."""
        accounts.set_password("default", "ann", "a long password")
        for who in (ann, accounts.create_user("default", "bob"), accounts.create_user(acme, "ann")):
            _, key = accounts.create_key(who.tenant, who.user_name, label="laptop", daily_tokens=7)
            with_key = replace(who, key_id=key.id)
            for n in range(2):
                message = conversations.add_turn(
                    with_key, uuid4(), question=f"{who.user_name} {n}?", answer=ANSWER, usage=Usage(), create=True
                )
                conversations.give_feedback(who, message.id, mark=1, comment=f"fine {n}")
        return ann

    def test_an_export_has_everything(self, conversations: Conversations, full: Identity, owner_conninfo: str) -> None:
        exported = conversations.export_user(full)
        written = str(exported)
        own = [row["id"] for row in stored(owner_conninfo, "chat_sessions") if row["user_id"] == full.user_id]
        messages = [row for row in stored(owner_conninfo, "chat_messages") if row["session_id"] in own]
        assert len(exported["conversations"]) == len(own) == 2
        assert [len(one["messages"]) for one in exported["conversations"]] == [2, 2]
        for table, key in (("chat_sessions", "user_id"), ("api_keys", "user_id"), ("usage_logs", "user_id")):
            for row in stored(owner_conninfo, table):
                if row[key] == full.user_id:
                    check_exported(row, written)
        for row in messages:
            check_exported(row, written)
        assert written.count("fine ") == 2
        assert "argon2" not in written
        assert "bob" not in written
        assert exported["user"]["has_password"]

    def test_deleting_leaves_the_user_alone(
        self, conversations: Conversations, accounts: Accounts, full: Identity, owner_conninfo: str
    ) -> None:
        before = counts(owner_conninfo)
        gone = conversations.delete_user_data(full)
        assert gone == {"feedback": 2, "messages": 4, "conversations": 2, "usage": 2}
        after = counts(owner_conninfo)
        assert {table: before[table] - after[table] for table in TABLES} == {
            "users": 0, "api_keys": 0, "chat_sessions": 2, "chat_messages": 4, "feedback": 2, "usage_logs": 2,
        }  # fmt: skip
        assert conversations.sessions(full) == []
        assert accounts.holdings("default", "ann") == {
            "conversations": 0, "messages": 0, "feedback": 0, "usage": 0, "keys": 1,
        }  # fmt: skip

    def test_deleting_the_user_leaves_nothing(
        self, conversations: Conversations, accounts: Accounts, full: Identity, owner_conninfo: str
    ) -> None:
        counted = accounts.holdings("default", "ann")
        assert accounts.delete_user("default", "ann") == counted
        assert counted == {"conversations": 2, "messages": 4, "feedback": 2, "usage": 2, "keys": 1}
        rows = [row for table in TABLES for row in stored(owner_conninfo, table) if row["tenant"] == "default"]
        assert str(full.user_id) not in str(rows)
        assert counts(owner_conninfo) == {
            "users": 2, "api_keys": 2, "chat_sessions": 4, "chat_messages": 8, "feedback": 4, "usage_logs": 4,
        }  # fmt: skip

    def test_a_conversation_leaves_its_cost(
        self, conversations: Conversations, full: Identity, owner_conninfo: str
    ) -> None:
        conversations.delete(full, conversations.sessions(full)[0].id)
        after = counts(owner_conninfo)
        assert (after["chat_sessions"], after["chat_messages"], after["feedback"], after["usage_logs"]) == (5, 10, 5, 6)


def check_exported(row: dict[str, Any], written: str) -> None:
    for name, value in row.items():
        if name in ("tenant", "user_id", "session_id", "secret_hash"):
            continue
        shown = value.isoformat() if isinstance(value, datetime) else str(value)
        assert f"'{name}': {shown}" in written or f"'{name}': '{shown}'" in written, (name, value)
