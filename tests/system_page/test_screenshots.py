"""
The page in each of its states, as pictures.

    SYNAPSE_SCREENSHOTS=docs/images python -m pytest tests/system_page/test_screenshots.py

makes those of the documentation again; without the variable they go into a temporary folder and only show that each state
can be reached.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from components.prompt_builder import NOT_FOUND
from database.embedded import EmbeddedServer
from pipelines.api import index_paths
from tests.fake_llm import FakeLanguageModel
from tests.support.serving import RunningService, running
from tests.system_page.browsing import Visit, visiting

pytestmark = pytest.mark.system

EXAMPLES = Path(__file__).parents[2] / "examples" / "documents"
CLEANING = "How is the primary mirror cleaned?"
HOURS = "When do the public evenings take place?"
NOTHING = "Who won the football match last night?"

SAID = {
    "mirror": [
        (
            "The primary mirror is washed **once a year** with distilled water and a few drops of neutral soap",
            "distilled water",
        ),
        ("It is never wiped: a sheet of cotton wool is drawn across the surface by its own weight", "cotton wool"),
        ("Its aluminium coating lasts about twelve years; the next one is due in 2028", "twelve years"),
    ],
    "evenings": [
        ("Public evenings take place every Saturday from 20:00 to 22:30 between October and March", "20:00 to 22:30")
    ],
}
Take = Callable[[Visit, str], None]


def _written(messages: list[dict[str, Any]]) -> str:
    """What a model would write: sentences with the numbers of the passages that they stand in."""
    asked = str(messages[-1]["content"])
    for word, sentences in SAID.items():
        if word in asked.splitlines()[-1]:
            return " ".join(f"{sentence} [{_number(asked, words)}]." for sentence, words in sentences)
    return NOT_FOUND


def _number(asked: str, words: str) -> str:
    before = asked[: asked.find(words)]
    return str(re.findall(r'<document number="(\d+)', before)[-1])


@pytest.fixture(scope="module")
def model() -> Iterator[FakeLanguageModel]:
    with FakeLanguageModel(answer=_written, token_delay=0.08) as found:
        yield found


@pytest.fixture(scope="module")
def observatory(
    server: EmbeddedServer | None, owner_conninfo: str, model: FakeLanguageModel
) -> Iterator[RunningService]:
    tenants: dict[str, Any] = {"observatory": {}}
    with running(server, owner_conninfo, page=True, tenants=tenants, llm_base_url=model.url, llm_model="fake") as found:
        index_paths([EXAMPLES], settings=replace(found.settings, tenant="observatory"))
        yield found


@pytest.fixture
def take(tmp_path: Path) -> Take:
    """Keeps a picture under a name, once letters and transitions have settled."""
    folder = Path(os.environ.get("SYNAPSE_SCREENSHOTS") or tmp_path)

    def picture(visit: Visit, name: str) -> None:
        visit.page.wait_for_timeout(600)
        path = folder / f"page-{name}.png"
        visit.page.screenshot(path=path)
        assert path.stat().st_size > 10_000

    return picture


def test_each_state_on_a_wide_screen(
    browser: Browser, observatory: RunningService, model: FakeLanguageModel, take: Take
) -> None:
    with visiting(browser, observatory, color_scheme="light") as visit:
        visit.open()
        visit.page.wait_for_selector("#email")
        take(visit, "login")
        visit.sign_in("observatory")
        take(visit, "empty")
        visit.page.locator("#chat-settings-open-modal").click()
        take(visit, "filters")
        visit.page.keyboard.press("Escape")

        visit.ask(CLEANING)
        expect(visit.page.locator(".ai-message")).to_contain_text("distilled water")
        take(visit, "streaming")
        answer = visit.answered()
        take(visit, "answered")
        answer.locator('a[href^="/sources/"]').first.click()
        expect(visit.source().locator("#quote")).to_be_in_viewport()
        visit.source().locator("img").evaluate("image => image.decode()")
        take(visit, "source")
        visit.page.keyboard.press("Escape")

        visit.page.locator("#new-chat-button").click()
        visit.ask(NOTHING)
        expect(visit.answered()).to_contain_text("The documents do not answer this question.")
        take(visit, "no-answer")

        visit.page.locator("#new-chat-button").click()
        model.forever = "401"
        visit.ask(HOURS)
        expect(visit.page.get_by_role("button", name="Ask again")).to_be_visible()
        model.forever = None
        take(visit, "error")


def test_the_dark_page_and_the_phone(browser: Browser, observatory: RunningService, take: Take) -> None:
    with visiting(browser, observatory, color_scheme="dark") as visit:
        visit.sign_in("observatory", "bob")
        visit.ask(CLEANING)
        visit.answered().locator('a[href^="/sources/"]').first.click()
        expect(visit.source().locator("#quote")).to_be_in_viewport()
        visit.source().locator("img").evaluate("image => image.decode()")
        take(visit, "dark")
    with visiting(browser, observatory, color_scheme="light", viewport={"width": 375, "height": 667}) as visit:
        visit.sign_in("observatory", "bob")
        visit.ask(HOURS)
        answer = visit.answered()
        take(visit, "mobile")
        answer.locator('a[href^="/sources/"]').first.click()
        expect(visit.source().locator("#quote")).to_be_in_viewport()
        take(visit, "mobile-source")
