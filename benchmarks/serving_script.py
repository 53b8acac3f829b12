"""
What the load on the service is about: documents, questions, a language model, and who may see what.

Every tenant has the same warehouses under the same names, and a code of its own for each; every conversation is held by a
visitor of its own. The model repeats every code and every visitor that stands anywhere in what it is given, so that
whatever goes astray on the way to it is seen in its answer.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from haystack import Document

from components.prompt_builder import NOT_FOUND

TENANTS = ("acme", "globex")
WAREHOUSES = 40
_SYLLABLES = ("ba", "ke", "lo", "mi", "nu", "ra", "si", "to", "ve", "zu")
_CODE = re.compile(r"code-[0-9a-f]{10}")
_VISITOR = re.compile(r"visitor-[0-9a-f]{10}")
_QUOTED = re.compile(r'<document number="(\d+)"[^>]*>\n(.*?)\n</document>', re.DOTALL)
_SENT = re.compile(r"^sent-(\d+\.\d+)")


def _hash(*parts: object) -> str:
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:10]


def warehouse(number: int) -> str:
    """The name of a warehouse, the same with every tenant."""
    scattered = number * 389 % 1000  # neighbours' names are not alike
    digits = (scattered // 100, scattered // 10 % 10, scattered % 10)
    return "".join(_SYLLABLES[digit] for digit in digits).capitalize() + "ra"


def code(tenant: str, number: int) -> str:
    """What opens it: a secret of the tenant's."""
    return f"code-{_hash(tenant, number)}"


def documents(tenant: str, count: int = WAREHOUSES) -> list[Document]:
    """A tenant's documents; sources, titles and lengths are those of every other tenant's."""
    return [
        Document(
            content=f"The gate of warehouse {warehouse(n)} opens with {code(tenant, n)}. Whoever loads there signs the "
            f"list beside the gate of {warehouse(n)}, and closes it again.",
            meta={"source": f"warehouses/{warehouse(n)}", "title": f"Warehouse {warehouse(n)}", "floor": n % 5},
        )
        for n in range(count)
    ]


@dataclass(frozen=True, kw_only=True)
class Script:
    """
    What one conversation asks, and what it may hear.

    :param tenant: Whose documents it is about.
    :param number: Which conversation of the tenant's.
    """

    tenant: str
    number: int

    @property
    def visitor(self) -> str:
        """Who holds it: nobody else's conversation has this mark."""
        return f"visitor-{_hash('visitor', self.tenant, self.number)}"

    def question(self, turn: int) -> str:
        """The question of a turn, from 0; each is asked once."""
        return f"{self.visitor} asks ({turn}): which code opens the gate of warehouse {warehouse(self._asked(turn))}?"

    def faults(self, turn: int, answer: str, passages: Iterable[str]) -> list[str]:
        """
        What is wrong with an answer.

        :param answer: Its text.
        :param passages: Everything else that came with it: quotes, documents, sources.
        """
        expected = code(self.tenant, self._asked(turn))
        whole = " ".join([answer, *passages])
        own = {code(self.tenant, n) for n in range(WAREHOUSES)}
        found = [f"a foreign code: {one}" for one in set(_CODE.findall(whole)) - own]
        found += [f"a foreign visitor: {one}" for one in set(_VISITOR.findall(whole)) - {self.visitor}]
        if f"opens with {expected}" not in answer or self.visitor not in answer:
            found.append(f"{expected} was expected for {self.visitor}, but the answer is {answer!r:.300}")
        return found

    def _asked(self, turn: int) -> int:
        return int(_hash(self.number, turn), 16) % WAREHOUSES


def reply(messages: list[dict[str, Any]]) -> str:
    """
    The model: answers from the quoted documents, and repeats every mark that it sees.

    Its first word says when it was sent (`time.perf_counter`, which all processes of a machine share on Linux).
    """
    documents, _, question = str(messages[-1]["content"]).rpartition("\n")
    if "Rewrite the user's last question" in str(messages[0]["content"]):
        return question
    seen = " ".join(str(message["content"]) for message in messages)
    asked = re.search(r"warehouse (\w+)\?", question)
    for number, text in _QUOTED.findall(documents):
        if asked and f"warehouse {asked[1]} " in text:
            opens = _CODE.search(text)
            marks = sorted(set(_CODE.findall(seen)) | set(_VISITOR.findall(seen)))
            return (
                f"sent-{time.perf_counter():.6f} the gate of {asked[1]} opens with {opens and opens[0]} [{number}]. "
                f"In sight were {', '.join(marks)} [{number}]."
            )
    return f"sent-{time.perf_counter():.6f} {NOT_FOUND}"


def sent_at(answer: str) -> float | None:
    """When the model sent the first word of an answer, on its clock; `None` where it does not say."""
    stamp = _SENT.match(answer)
    return float(stamp[1]) if stamp else None
