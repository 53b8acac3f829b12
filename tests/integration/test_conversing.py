"""Questions in stored conversations: follow-ups, costs, readers that leave, databases that are away."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from components.answers import NOT_IN_DOCUMENTS
from config import Settings
from database import connection
from database.accounts import Accounts, Identity
from database.connection import Database
from database.conversations import ChatMessage, Conversations
from database.errors import (
    DatabaseError,
    DatabaseUnavailableError,
    InvalidInputError,
    LanguageModelError,
    LimitError,
    NotFoundError,
)
from pipelines import conversing as module
from pipelines.answering import Assistant
from pipelines.conversing import Conversing, Reply
from tests.fake_llm import FakeLanguageModel
from tests.support.answering import index_texts
from tests.support.people import counts, empty, other_tenant, stored
from tests.support.relay import relayed

HOW_LONG = "How long is the warranty of a dishwasher?"
WORDS = "The warranty is 24 months [1]."


class World:
    """A database with documents and users, and whatever answers from it."""

    def __init__(self, database: Database, owner_conninfo: str) -> None:
        self.database = database
        self.owner_conninfo = owner_conninfo
        self.accounts = Accounts(database)
        self.conversations = Conversations(database)
        self.ann = self.accounts.create_user("default", "ann")
        self.assistants: dict[tuple[str, str | None], Assistant] = {}

    def conversing(self, model: FakeLanguageModel | None = None, **limits: Any) -> Conversing:
        def assistant_for(tenant: str) -> Assistant:
            key = (tenant, model and model.url)
            if key not in self.assistants:
                url = model.url if model else None
                settings = Settings(
                    database_url=self.database.conninfo,
                    tenant=tenant,
                    llm_base_url=url,
                    llm_timeout=5,
                    llm_model="fake",
                )
                self.assistants[key] = Assistant(settings)
            return self.assistants[key]

        return Conversing(assistant_for, self.conversations, **limits)

    def said(self) -> list[tuple[str, str, bool]]:
        """All messages of all conversations, in order."""
        rows = stored(self.owner_conninfo, "chat_messages")
        rows.sort(key=lambda row: (row["created_at"], row["position"]))
        return [(row["role"], row["content"], row["interrupted"]) for row in rows]

    def usage(self) -> dict[str, Any]:
        (row,) = stored(self.owner_conninfo, "usage_logs")
        return row

    def kill_connections(self, application: str = "synapse") -> None:
        """As a server that is restarted does."""
        statement = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s"
        with psycopg.connect(self.owner_conninfo, autocommit=True) as connection:
            connection.execute(statement + " AND usename = 'synapse_app'", [application])

    def let_in(self, allowed: bool) -> None:
        """Whether the application's role may connect."""
        with psycopg.connect(self.owner_conninfo, autocommit=True) as connection:
            connection.execute(f"ALTER ROLE synapse_app {'LOGIN' if allowed else 'NOLOGIN'}")

    def run(self, scene: Callable[[], Any]) -> Any:
        """Run a coroutine function in an event loop of its own, and close what it opened."""

        async def scene_then_close() -> Any:
            try:
                return await scene()
            finally:
                await self.conversations.close_async()
                await self.database.close_async()

        return asyncio.run(scene_then_close())


@pytest.fixture(scope="module")
def indexed(session_database: Database, owner_conninfo: str) -> Database:
    with psycopg.connect(owner_conninfo, autocommit=True) as connection:
        connection.execute("TRUNCATE sources, documents_all_minilm_l6_v2 CASCADE")
    index_texts(session_database)
    return session_database


@pytest.fixture
def world(indexed: Database, owner_conninfo: str) -> Iterator[World]:
    empty(owner_conninfo)
    world = World(indexed, owner_conninfo)
    yield world
    world.conversations.close()


@pytest.fixture
def model() -> Iterator[FakeLanguageModel]:
    with FakeLanguageModel(WORDS) as model:
        yield model


async def heard(parts: Any) -> tuple[list[str], Reply]:
    *texts, reply = [part async for part in parts]
    assert isinstance(reply, Reply)
    return texts, reply


class TestAnswers:
    def test_the_parts_and_the_whole_are_stored(self, world: World, model: FakeLanguageModel) -> None:
        texts, reply = world.run(lambda: heard(world.conversing(model).stream(world.ann, HOW_LONG)))
        assert len(texts) > 3
        assert "".join(texts) == WORDS
        assert reply.session_id is not None
        question, answer = world.conversations.messages(world.ann, reply.session_id)
        assert (question.content, answer.content) == (HOW_LONG, reply.answer.text)
        assert answer.id == reply.message_id
        assert answer.citations == [one.to_dict() for one in reply.answer.citations]
        assert (answer.model, answer.supported, answer.interrupted) == ("fake", True, False)
        assert answer.timings_ms["total"] > 0
        assert world.conversations.session(world.ann, reply.session_id).title == HOW_LONG

    def test_without_a_language_model(self, world: World) -> None:
        reply = world.run(lambda: world.conversing().ask(world.ann, HOW_LONG))
        assert (reply.answer.extractive, reply.tokens_in, reply.tokens_out) == (True, 0, 0)
        (message,) = world.conversations.messages(world.ann, reply.session_id, last=1)
        assert (message.extractive, message.model) == (True, None)

    def test_what_the_documents_do_not_answer(self, world: World, model: FakeLanguageModel) -> None:
        reply = world.run(lambda: world.conversing(model).ask(world.ann, "What is the capital of Mongolia?"))
        assert reply.answer.text == NOT_IN_DOCUMENTS
        assert world.usage()["supported"] is False

    def test_from_the_terminal(self, world: World, model: FakeLanguageModel) -> None:
        parts: list[str] = []
        reply = world.conversing(model).ask_sync(world.ann, HOW_LONG, on_text=parts.append)
        assert "".join(parts) == WORDS
        assert world.said() == [("user", HOW_LONG, False), ("assistant", reply.answer.text, False)]
        assert (reply.tokens_in > 0, reply.tokens_out, reply.tokens_estimated) == (True, 6, False)

    def test_nothing_is_stored_if_not_wanted(self, world: World, model: FakeLanguageModel) -> None:
        conversing = world.conversing(model)
        reply = world.run(lambda: conversing.ask(world.ann, HOW_LONG, store=False))
        assert (reply.session_id, reply.message_id) == (None, None)
        conversing.ask_sync(world.ann, HOW_LONG, store=False)
        assert counts(world.owner_conninfo)["chat_sessions"] == 0
        assert counts(world.owner_conninfo)["usage_logs"] == 2

    @pytest.mark.parametrize("question", ["", " \n", "\0", "half \ud800"])
    def test_what_is_no_question(self, world: World, question: str) -> None:
        conversing = world.conversing()
        with pytest.raises(InvalidInputError):
            world.run(lambda: conversing.ask(world.ann, question))
        with pytest.raises(InvalidInputError):
            conversing.ask_sync(world.ann, question)
        assert world.said() == []


class TestFollowUps:
    def test_by_the_model(self, world: World) -> None:
        def answer(messages: list[dict[str, Any]]) -> str:
            return "Who claims the warranty of a dishwasher?" if "Rewrite" in messages[0]["content"] else WORDS

        with FakeLanguageModel(answer) as model:
            conversing = world.conversing(model)
            first = world.run(lambda: conversing.ask(world.ann, HOW_LONG))
            world.run(lambda: conversing.ask(world.ann, "Who claims it?", session_id=first.session_id))
            rewriting = [r["messages"] for r in model.requests if "Rewrite" in r["messages"][0]["content"]]
        assert len(rewriting) == 1
        assert [message["content"] for message in rewriting[0][1:]] == [HOW_LONG, first.answer.text, "Who claims it?"]

    def test_by_rules_in_another_program(self, world: World) -> None:
        """What begins in the terminal goes on elsewhere."""
        first = world.conversing().ask_sync(world.ann, "What is the default of ef_search?")
        elsewhere = Conversing(world.conversing().assistant_for, Conversations(world.database))

        async def go_on() -> Reply:
            try:
                return await elsewhere.ask(world.ann, "and on Docker?", session_id=first.session_id)
            finally:
                await elsewhere.conversations.close_async()

        second = world.run(go_on)
        assert second.session_id == first.session_id
        assert "On Docker you set ef_search" in second.answer.text
        alone = world.run(lambda: world.conversing().ask(world.ann, "and elsewhere?"))
        assert not alone.answer.supported

    def test_a_history_that_is_brought_along(self, world: World) -> None:
        history = [{"role": "user", "content": "What is the default of ef_search?"}]
        reply = world.run(lambda: world.conversing().ask(world.ann, "and elsewhere?", history=history))
        assert reply.answer.citations[0].source == "search.md"
        assert len(world.said()) == 2

    def test_only_the_last_turns(self, world: World, model: FakeLanguageModel) -> None:
        conversing = world.conversing(model)
        session = conversing.ask_sync(world.ann, "first " + HOW_LONG).session_id
        for n in range(module.REMEMBERED_TURNS):
            conversing.ask_sync(world.ann, f"{n} {HOW_LONG}", session_id=session)
        conversing.ask_sync(world.ann, HOW_LONG, session_id=session)
        assert "first" not in str(model.requests[-2:])


class TestWhose:
    def test_another_users_conversation(self, world: World, owner: Database, model: FakeLanguageModel) -> None:
        conversing = world.conversing(model)
        session = conversing.ask_sync(world.ann, HOW_LONG).session_id
        asked = len(model.requests)
        with other_tenant(owner) as acme:
            strangers = [world.accounts.create_user("default", "bob"), world.accounts.create_user(acme, "ann")]
            for who in [*strangers, replace(world.ann, tenant=acme)]:
                for options in ({}, {"history": []}):
                    for place in (session, uuid4()):
                        with pytest.raises(NotFoundError):
                            world.run(lambda w=who, p=place, o=options: conversing.ask(w, HOW_LONG, session_id=p, **o))
                        with pytest.raises(NotFoundError):
                            conversing.ask_sync(who, HOW_LONG, session_id=place, **options)
            with pytest.raises(NotFoundError):
                world.run(lambda: conversing.ask(strangers[0], HOW_LONG, session_id=session, create=True))
        assert len(world.said()) == 2
        assert len(model.requests) == asked + 1  # the last one was let through to the model, but nowhere else

    def test_another_tenants_documents(self, world: World, owner: Database) -> None:
        with other_tenant(owner) as acme:
            eve = world.accounts.create_user(acme, "eve")
            conversing = world.conversing()
            assert not conversing.ask_sync(eve, HOW_LONG).answer.supported
            assert conversing.ask_sync(world.ann, HOW_LONG).answer.supported


class TestCosts:
    def test_the_servers_own_count(self, world: World, model: FakeLanguageModel) -> None:
        """This model's tokens are words; the sync and the streamed answer are counted alike."""
        reply = world.run(lambda: world.conversing(model).ask(world.ann, HOW_LONG))
        read = sum(len(message["content"].split()) for message in model.requests[0]["messages"])
        assert model.requests[0]["stream_options"] == {"include_usage": True}
        assert (reply.tokens_in, reply.tokens_out, reply.tokens_estimated) == (read, 6, False)
        row = world.usage()
        assert (row["tokens_in"], row["tokens_out"], row["tokens_estimated"], row["model"]) == (read, 6, False, "fake")
        assert row["milliseconds"] > 0

    def test_the_limit_of_a_day(self, world: World, model: FakeLanguageModel) -> None:
        conversing = world.conversing(model, daily_tokens=50)
        keyed = [
            replace(world.ann, key_id=world.accounts.create_key("default", "ann", label="")[1].id, daily_tokens=limit)
            for limit in (None, 10**6, 0)
        ]
        first = world.run(lambda: conversing.ask(keyed[0], HOW_LONG))
        assert first.tokens_in + first.tokens_out > 50
        with pytest.raises(LimitError, match="Fewer than 50 tokens"):
            world.run(lambda: conversing.ask(keyed[0], HOW_LONG))
        with pytest.raises(LimitError, match="Fewer than 50 tokens"):
            conversing.ask_sync(world.ann, HOW_LONG)
        assert world.run(lambda: conversing.ask(keyed[1], HOW_LONG)).answer.supported
        with pytest.raises(LimitError, match="Fewer than 0 tokens"):
            world.run(lambda: conversing.ask(keyed[2], HOW_LONG))


class TestLeaving:
    @pytest.mark.parametrize("way", ["close", "cancel", "cancel again and again"])
    def test_what_was_written_is_stored(self, world: World, way: str) -> None:
        with FakeLanguageModel(" ".join(["word"] * 200), token_delay=0.02) as model:
            conversing = world.conversing(model)
            world.conversing(model).assistant_for("default").warm_up()

            async def leave() -> None:
                stream = conversing.stream(world.ann, HOW_LONG)
                enough = asyncio.Event()

                async def listen() -> None:
                    got = 0
                    async for _ in stream:
                        got += 1
                        if got == 3:
                            enough.set()

                listening = asyncio.create_task(listen())
                await enough.wait()
                if way == "close":
                    listening.cancel()
                    await asyncio.wait([listening])
                    await stream.aclose()
                else:
                    listening.cancel()
                    while way == "cancel again and again" and not listening.done():
                        listening.cancel()
                        await asyncio.sleep(0)
                    await asyncio.wait([listening])
                await conversing.drain()

            world.run(leave)
            deadline = time.monotonic() + 5
            while not model.abandoned and time.monotonic() < deadline:
                time.sleep(0.02)
            assert model.abandoned == 1
        (_, question, _), (_, answer, interrupted) = world.said()
        assert question == HOW_LONG
        assert interrupted
        assert 3 <= answer.count("word") < 100
        row = world.usage()
        assert (row["interrupted"], row["tokens_estimated"], row["supported"]) == (True, True, None)
        assert row["tokens_in"] > 50
        assert row["tokens_out"] >= 3

    def test_leaving_a_suspended_stream(self, world: World, model: FakeLanguageModel) -> None:
        conversing = world.conversing(model)

        async def leave() -> None:
            stream = conversing.stream(world.ann, HOW_LONG)
            assert await anext(stream) == "The"
            await stream.aclose()

        world.run(leave)
        assert world.said() == [("user", HOW_LONG, False), ("assistant", "The", True)]

    def test_leaving_before_the_first_word(self, world: World) -> None:
        with FakeLanguageModel(forever="silent") as model:
            conversing = world.conversing(model)

            async def leave() -> None:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(conversing.ask(world.ann, HOW_LONG), 1)

            world.run(leave)
        assert world.said() == [("user", HOW_LONG, False), ("assistant", "", True)]

    def test_it_goes_on(self, world: World, model: FakeLanguageModel) -> None:
        """What was interrupted is part of the history; an answer without a word is not."""
        conversing = world.conversing(model)

        def stop(_: str) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            conversing.ask_sync(world.ann, HOW_LONG, session_id=(place := uuid4()), create=True, on_text=stop)
        assert world.said() == [("user", HOW_LONG, False), ("assistant", "The", True)]
        reply = conversing.ask_sync(world.ann, HOW_LONG, session_id=place)
        assert [message.position for message in world.conversations.messages(world.ann, place)] == [1, 2, 3, 4]
        assert "The" in [message["content"] for message in model.requests[-1]["messages"]]
        assert reply.session_id == place

    def test_a_model_that_breaks_off(self, world: World) -> None:
        with (
            FakeLanguageModel(WORDS, failures=("cut",)) as model,
            pytest.raises(LanguageModelError, match="broke off"),
        ):
            world.run(lambda: world.conversing(model).ask(world.ann, HOW_LONG))
        (_, question, _), (_, answer, interrupted) = world.said()
        assert (question, interrupted) == (HOW_LONG, True)
        assert WORDS.startswith(answer)
        assert answer

    def test_a_model_that_says_nothing_leaves_nothing(self, world: World) -> None:
        with FakeLanguageModel(forever="401") as model:
            with pytest.raises(LanguageModelError):
                world.run(lambda: world.conversing(model).ask(world.ann, HOW_LONG))
            with pytest.raises(LanguageModelError):
                world.conversing(model).ask_sync(world.ann, HOW_LONG)
        assert world.said() == []
        assert counts(world.owner_conninfo)["usage_logs"] == 0

    def test_at_once_in_one_conversation(self, world: World, model: FakeLanguageModel) -> None:
        conversing = world.conversing(model)
        place = uuid4()

        async def all_at_once() -> None:
            asked = [conversing.ask(world.ann, f"{n} {HOW_LONG}", session_id=place, create=True) for n in range(12)]
            await asyncio.gather(*asked)

        world.run(all_at_once)
        messages: list[ChatMessage] = world.conversations.messages(world.ann, place)
        assert [one.position for one in messages] == list(range(1, 25))
        assert sorted(one.content for one in messages[::2]) == sorted(f"{n} {HOW_LONG}" for n in range(12))


class TestTheDatabaseIsAway:
    @pytest.mark.parametrize("sync", [True, False])
    def test_a_restart_loses_nothing(self, world: World, sync: bool) -> None:
        """It is away when the answer is there, and back a moment later."""

        def answer(_: Any) -> str:
            world.let_in(False)
            world.kill_connections()
            threading.Timer(0.6, world.let_in, [True]).start()
            return WORDS

        try:
            with FakeLanguageModel(answer) as model:
                reply = self.ask(world, world.conversing(model), sync=sync)
        finally:
            world.let_in(True)
        assert world.said() == [("user", HOW_LONG, False), ("assistant", reply.answer.text, False)]

    @pytest.mark.parametrize("sync", [True, False])
    def test_what_is_not_stored_is_said(self, world: World, sync: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        """The conversations' way to the database is cut, the documents' is not."""
        monkeypatch.setattr(module, "STORE_DELAYS", (0.1,))
        with relayed(world.database.conninfo) as (through, _):

            def answer(_: Any) -> str:
                next(Path(conninfo_to_dict(through)["host"]).iterdir()).unlink()
                world.kill_connections("conversations")
                return WORDS

            world.conversations = Conversations(Database(make_conninfo(through, application_name="conversations")))
            session = world.conversations.create_session(world.ann)
            with (
                FakeLanguageModel(answer) as model,
                pytest.raises(DatabaseUnavailableError, match="The answer was given, but is not stored"),
            ):
                self.ask(world, world.conversing(model), sync=sync, session_id=session.id)
        assert world.said() == []

    @pytest.mark.parametrize("sync", [True, False])
    def test_nor_what_could_not_be_checked(self, world: World, sync: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "STORE_DELAYS", ())
        monkeypatch.setattr(connection, "RESTART_PATIENCE", 0.1)
        monkeypatch.setattr(connection, "CONNECT_TIMEOUT", 0.5)
        # Not the embedded server's own way in, which would open the door again.
        world.conversations = Conversations(Database(world.database.conninfo))

        def answer(_: Any) -> str:
            world.let_in(False)
            world.kill_connections()
            return WORDS

        try:
            with (
                FakeLanguageModel(answer) as model,
                pytest.raises(DatabaseError, match="The answer was given, but is not stored"),
            ):
                self.ask(world, world.conversing(model), sync=sync)
        finally:
            world.let_in(True)
        assert world.said() == []

    def test_a_conversation_that_was_deleted_meanwhile(self, world: World) -> None:
        session = world.conversations.create_session(world.ann)

        def answer(_: Any) -> str:
            world.conversations.delete(world.ann, session.id)
            return WORDS

        with (
            FakeLanguageModel(answer) as model,
            pytest.raises(NotFoundError, match="The answer was given, but is not stored"),
        ):
            world.conversing(model).ask_sync(world.ann, HOW_LONG, session_id=session.id)

    def test_before_the_question(self, world: World) -> None:
        conversing = Conversing(world.conversing().assistant_for, Conversations(Database("host=127.0.0.1 port=1")))
        with pytest.raises(DatabaseUnavailableError):
            world.run(lambda: conversing.ask(world.ann, HOW_LONG, session_id=uuid4()))

    @staticmethod
    def ask(world: World, conversing: Conversing, *, sync: bool, session_id: UUID | None = None) -> Reply:
        if sync:
            return conversing.ask_sync(world.ann, HOW_LONG, session_id=session_id)
        reply: Reply = world.run(lambda: conversing.ask(world.ann, HOW_LONG, session_id=session_id))
        return reply


def test_identities_show_no_secret(world: World) -> None:
    text, key = world.accounts.create_key("default", "ann", label="")
    identity = asyncio.run(world.accounts.authenticate_key_async(text))
    assert isinstance(identity, Identity)
    assert text.split(".")[1] not in repr(identity) + repr(key)
