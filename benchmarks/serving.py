"""
The service under load: 64 conversations of two tenants, what the service adds to its pipeline, and its memory.

    python -m benchmarks.serving [--seconds 600] [--conversations 64] [--calls 200] [--json FILE]

The scripted language model runs as a process of its own. Sides that are compared are called in turn within one run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.measuring import Finding, p50, p95, print_findings, say, temporary_home
from benchmarks.serving_client import Client
from benchmarks.serving_load import Outcome, hold_all
from benchmarks.serving_process import Ground, ServiceProcess, client_of, service, settled
from benchmarks.serving_script import TENANTS, Script, documents, sent_at
from config import PROJECT, Settings
from pipelines.answering import Assistant

USERS = 4
TOKEN_DELAY = 0.02
"""Seconds between the words of the model: fifty a second."""

MODEL = """
import sys
from benchmarks.serving_script import reply
from tests.fake_llm import FakeLanguageModel
with FakeLanguageModel(reply, token_delay=float(sys.argv[1])) as model:
    model.requests = type("Forgetful", (list,), {"append": lambda self, one: None})()
    print(model.url, flush=True)
    sys.stdin.read()
"""


@contextmanager
def model_server(token_delay: float) -> Iterator[str]:
    """The address of the scripted model, which runs as a process of its own."""
    command = [sys.executable, "-c", MODEL, str(token_delay)]
    with subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None, "it is a pipe"
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


async def load(running: ServiceProcess, keys: dict[str, list[str]], options: argparse.Namespace) -> Outcome:
    """Hold the conversations."""
    async with client_of(running) as http:
        users = {tenant: [Client(http, key) for key in own] for tenant, own in keys.items()}
        return await hold_all(
            users, conversations=options.conversations, seconds=options.seconds, most=10_000, think=options.think
        )


def load_findings(found: Outcome, memory: tuple[float, float], busy: Sequence[str]) -> list[Finding]:
    """What is reported of a load."""
    row = "load"
    asked = {"questions": found.questions, "seconds": found.seconds, "told to come back": found.refused}
    findings = [
        Finding(row=row, what="answers or citations across tenants or conversations", value=len(found.faults), at_most=0),
        Finding(row=row, what="conversations not stored as they were held", value=len(found.lost), at_most=0),
        Finding(row=row, what="questions without an answer", value=len(found.errors), at_most=0),
        Finding(row=row, what="questions per second", value=found.questions / found.seconds, beside=asked),
        Finding(row=row, what="connections still busy at the end", value=len(busy), at_most=0),
        Finding(row=row, what="memory at the end, to the start", value=memory[1] / memory[0], unit="x",
                beside={"start MB": memory[0], "end MB": memory[1]}),
    ]  # fmt: skip
    for what, times in (
        ("retrieval (embedding and search, as the service says)", found.retrieval),
        ("POST /search", found.searches),
        ("first word, after the model's", found.first),
        ("whole answer", found.whole),
    ):
        findings.append(
            Finding(row=row, what=f"{what}, p95 under load", value=p95(times), unit=" ms", beside=spread(times))
        )
    return findings


def spread(times: Sequence[float]) -> dict[str, float]:
    """How times are spread."""
    ordered = sorted(times)
    return {"p50": p50(ordered), "p99": ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))], "n": len(ordered)}


async def unheard(_: str) -> None:
    """Nobody listens to the parts."""


async def added(running: ServiceProcess, key: str, settings: Settings, calls: int) -> list[Finding]:
    """What the service adds, one request at a time: to the pipeline in this process, and to the model's first word."""
    assistant = Assistant(settings)
    script = Script(tenant=settings.tenant, number=0)
    times: dict[str, list[float]] = {name: [] for name in ("search", "/search", "ask", "/ask", "first")}
    async with client_of(running) as http:
        client = Client(http, key)
        for n in range(-10, calls):  # the first ten warm everything up
            question = script.question(n)
            sides: dict[str, Any] = {
                "search": lambda asked=question: asyncio.to_thread(assistant.search, asked),
                "/search": lambda asked=question: client.search(asked),
                # The service reads every answer as it is written, so that one that is cut off is kept; so does this side.
                "ask": lambda asked=question: assistant.ask_async(asked, on_text=unheard),
                "/ask": lambda asked=question: client.ask(asked),
            }
            names = list(sides)
            for name in names[n % 4 :] + names[: n % 4]:
                began = time.perf_counter()
                await sides[name]()
                if n >= 0:
                    times[name].append((time.perf_counter() - began) * 1000)
            heard = await client.stream(question)
            sent = sent_at(heard.text)
            if n >= 0 and heard.first_at and sent:
                times["first"].append((heard.first_at - sent) * 1000)
    return [
        *(
            Finding(
                row="overhead",
                what=f"POST /{name}, over the pipeline in this process (difference of p50)",
                value=p50(times[f"/{name}"]) - p50(times[name]),
                unit=" ms",
                at_most=15,
                beside={"pipeline p50": p50(times[name]), "HTTP p50": p50(times[f"/{name}"]), "n": calls},
            )
            for name in ("search", "ask")
        ),
        Finding(
            row="overhead",
            what="first streamed word at the client, after the model sent it, p50",
            value=p50(times["first"]),
            unit=" ms",
            at_most=20,
            beside={"p95": p95(times["first"]), "n": len(times["first"])},
        ),
    ]


def measure(options: argparse.Namespace) -> tuple[list[Finding], Outcome]:
    """Set up, measure, take down."""
    with temporary_home() as home, model_server(TOKEN_DELAY) as slow, model_server(0.0) as quick:
        home.mkdir(mode=0o755)
        ground = Ground(home / "ground")
        try:
            settings = {tenant: ground.tenant(tenant, documents(tenant)) for tenant in TENANTS}
            keys = {tenant: [ground.user(tenant, f"user{n}")[1] for n in range(USERS)] for tenant in TENANTS}
            roomy = {"SERVE_REQUESTS_PER_MINUTE": "1000000", "SERVE_MAX_CONCURRENT": str(options.conversations)}
            with service(ground, home / "log", LLM_BASE_URL=quick, **roomy) as running:
                own = replace(settings[TENANTS[0]], llm_base_url=quick)
                findings = asyncio.run(added(running, keys[TENANTS[0]][0], own, options.calls))
            keys = {tenant: [ground.user(tenant, f"guest{n}")[1] for n in range(USERS)] for tenant in TENANTS}
            with service(ground, home / "log", LLM_BASE_URL=slow, **roomy) as running:
                start = running.memory_mb()
                say(f"{options.conversations} conversations, {options.seconds:g} s …")
                found = asyncio.run(load(running, keys, options))
                memory, busy = (start, running.memory_mb()), settled(ground)
        finally:
            ground.close()
    return [*findings, *load_findings(found, memory, busy)], found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0, help="how long questions are asked")
    parser.add_argument("--conversations", type=int, default=64, help="side by side, half of them with each tenant")
    parser.add_argument("--think", type=float, default=6.0, help="seconds between an answer and the next question")
    parser.add_argument("--calls", type=int, default=200, help="of each side that is compared")
    parser.add_argument("--json", type=Path, help="write the findings there, too")
    options = parser.parse_args()
    findings, found = measure(options)
    print_findings(findings)
    for trouble in [*found.faults, *found.lost, *found.errors][:20]:
        print(trouble)
    if options.json:
        options.json.write_text(json.dumps([one.data() for one in findings], indent=1))
    sys.exit(0 if all(one.met is not False for one in findings) else 5)


if __name__ == "__main__":
    main()
