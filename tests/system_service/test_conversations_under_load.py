"""
64 conversations of two tenants at once, in a short form; `python -m benchmarks.serving` runs the long one.

Every document, every question and every visitor has a mark of its own, and the scripted model repeats each mark that it
sees: whatever reaches a prompt, an answer or a citation from elsewhere is found.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.serving_load import hold_all
from benchmarks.serving_process import Ground, service, settled
from benchmarks.serving_script import TENANTS, Script, code, reply
from tests.fake_llm import FakeLanguageModel
from tests.system_service.conftest import users

pytestmark = [pytest.mark.system, pytest.mark.slow]


def test_the_script_finds_what_is_foreign() -> None:
    one = Script(tenant="acme", number=3)
    messages = [{"role": "user", "content": f'<document number="1">\nThe gate of warehouse X {code("acme", 1)}'}]
    assert one.faults(0, reply([*messages, {"role": "user", "content": one.question(0)}]), [])
    expected = next(
        code("acme", n) for n in range(40) if not one.faults(0, f"opens with {code('acme', n)} {one.visitor}", [])
    )
    answer = f"opens with {expected} [1]. In sight were {one.visitor}"
    assert one.faults(0, answer, []) == []
    for tenant in set(TENANTS) - {"acme"}:
        assert one.faults(0, f"{answer}, {code(tenant, 5)}", []) == [f"a foreign code: {code(tenant, 5)}"]
        assert one.faults(0, answer, [f"quote: {code(tenant, 5)}"]) == [f"a foreign code: {code(tenant, 5)}"]
    stranger = Script(tenant="acme", number=4).visitor
    assert one.faults(0, f"{answer}, {stranger}", []) == [f"a foreign visitor: {stranger}"]


async def test_nothing_crosses_and_nothing_is_lost(ground: Ground, keys: dict[str, list[str]], tmp_path: Path) -> None:
    with FakeLanguageModel(reply, token_delay=0.005) as model:
        settings = {"LLM_BASE_URL": model.url, "SERVE_REQUESTS_PER_MINUTE": "100000", "SERVE_MAX_CONCURRENT": "128"}
        with service(ground, tmp_path / "log", **settings) as running:
            found = await hold_all(users(running, keys), conversations=64, seconds=30, most=8, think=1.0)
            assert found.errors == []
            assert found.faults == []
            assert found.lost == []
            assert found.questions >= 64 * 3
            assert len(found.searches) > 32
            assert settled(ground) == []
            assert "Traceback" not in running.said()
