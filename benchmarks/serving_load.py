"""Many conversations at once: each follows its script, and afterwards everything is compared with what is stored."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.serving_client import Client, Failed, Heard
from benchmarks.serving_script import Script, sent_at


@dataclass
class Held:
    """
    One conversation: what was said, and what was wrong with it.

    :param script: What it asks.
    :param client: The user who holds it.
    """

    script: Script
    client: Client
    session_id: str | None = None
    said: list[tuple[str, str]] = field(default_factory=list)
    heard: list[Heard] = field(default_factory=list)
    searches: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    async def hold(self, *, until: float, most: int, think: float) -> None:
        """
        Ask turn after turn, by REST and by OpenAI's protocol in turn, and search in between.

        :param until: `time.monotonic` after which no further question is asked.
        :param most: Turns at most.
        :param think: Seconds between an answer and the next question, on average.
        """
        chance = random.Random(self.script.visitor)
        await asyncio.sleep(chance.uniform(0, think))
        turn = 0
        while turn < most and time.monotonic() < until:
            question = self.script.question(turn)
            try:
                if turn % 4 == 3:
                    found = await self.client.search(question)
                    self.searches.append(found.whole_ms)
                    # A search is asked for as much as an answer: its passages hold no foreign mark either.
                    self.faults += [f for f in self.script.faults(turn, "", found.passages) if "foreign" in f]
                self._note(turn, question, await self._ask(turn, question))
            except (Failed, OSError) as exc:
                self.errors.append(f"{self.script.visitor}, turn {turn}: {exc!r}")
            turn += 1
            await asyncio.sleep(chance.uniform(0.5, 1.5) * think)

    async def compare(self, *, repeats: bool = False) -> list[str]:
        """
        What of the conversation is not stored as it was heard, in its order.

        :param repeats: Whether questions that had no answer, and were asked again, may stand there, too.
        """
        if self.session_id is None:
            return [f"{self.script.visitor} has no conversation"]
        stored = [(one["role"], one["content"]) for one in await self.client.transcript(self.session_id)]
        said = [part for question, answer in self.said for part in (("user", question), ("assistant", answer))]
        rest = iter(stored)
        as_heard = stored == said or (repeats and all(part in rest for part in said))
        return [] if as_heard else [f"{self.script.visitor}: stored {stored!r:.2000}, but said {said!r:.2000}"]

    async def _ask(self, turn: int, question: str) -> Heard:
        ask = self.client.stream if turn % 2 else self.client.ask
        return await ask(question, self.session_id)

    def _note(self, turn: int, question: str, heard: Heard) -> None:
        if self.session_id not in (None, heard.session_id):
            self.faults.append(f"{self.script.visitor}: went on in conversation {heard.session_id}")
        self.session_id = heard.session_id
        self.said.append((question, heard.text))
        self.heard.append(heard)
        self.faults += self.script.faults(turn, heard.text, heard.passages)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """
    What came of it all. Times are in milliseconds.

    :param questions: How many were asked.
    :param seconds: How long it took.
    :param faults: Whatever was answered from another tenant or conversation, or not as the documents say.
    :param lost: Conversations that are not stored as they were held.
    :param errors: Questions that were not answered.
    :param refused: How often the service said to come back later.
    :param whole: From a question to the end of its answer.
    :param retrieval: What the service says that embedding and retrieval took.
    :param searches: `POST /search`, over HTTP.
    :param first: From the model's first word to its arrival at the client.
    """

    questions: int
    seconds: float
    faults: list[str]
    lost: list[str]
    errors: list[str]
    refused: int
    whole: list[float]
    retrieval: list[float]
    searches: list[float]
    first: list[float]


async def hold_all(
    clients: Mapping[str, Sequence[Client]],
    *,
    conversations: int,
    seconds: float,
    most: int,
    think: float,
    repeats: bool = False,
) -> Outcome:
    """
    Hold conversations side by side, and read them back.

    :param clients: The users of each tenant; conversations are dealt out among them.
    :param conversations: How many in all, as many with each tenant.
    :param seconds: How long questions are asked.
    :param most: Turns of a conversation at most.
    :param think: Seconds between an answer and the next question, on average.
    :param repeats: Whether questions that had no answer, and were asked again, may be stored.
    """
    each = conversations // len(clients)
    held = [
        Held(Script(tenant=tenant, number=n), users[n % len(users)])
        for tenant, users in clients.items()
        for n in range(each)
    ]
    began = time.monotonic()
    await asyncio.gather(*(one.hold(until=began + seconds, most=most, think=think) for one in held))
    took = time.monotonic() - began
    lost = [fault for one in held for fault in await one.compare(repeats=repeats)]
    lost += await _strangers(held)
    heard = [one for conversation in held for one in conversation.heard]
    return Outcome(
        questions=len(heard),
        seconds=took,
        faults=[fault for one in held for fault in one.faults],
        lost=lost,
        errors=[error for one in held for error in one.errors],
        refused=sum(one.refused for one in heard),
        whole=[one.whole_ms for one in heard],
        retrieval=[one.retrieval_ms for one in heard if one.retrieval_ms is not None],
        searches=[ms for one in held for ms in one.searches],
        first=[(one.first_at - sent) * 1000 for one in heard if one.first_at and (sent := sent_at(one.text))],
    )


async def _strangers(held: Sequence[Held]) -> list[str]:
    """Conversations in a user's list that are not the user's, and those that are missing in it."""
    found = []
    for key in {one.client.key for one in held}:
        own = [one for one in held if one.client.key == key]
        listed, expected = await own[0].client.conversations(), {one.session_id for one in own if one.session_id}
        if listed != expected:
            found.append(
                f"a list of {len(listed)} conversations was expected to be {len(expected)}: {listed ^ expected}"
            )
    return found
