"""An answer that a language model writes: it streams, can be stopped, and may fail."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.fake_llm import FakeLanguageModel
from tests.support.serving import RunningService
from tests.system_page.browsing import Visit, visiting

pytestmark = pytest.mark.system

QUESTION = "How long is the warranty of dishwashers?"


@pytest.fixture
def writing(browser: Browser, written: RunningService) -> Iterator[Visit]:
    with visiting(browser, written) as found:
        yield found
        assert found.foreign == []
        assert found.errors == []


def test_the_answer_grows_while_it_is_written(writing: Visit) -> None:
    writing.sign_in("initech")
    writing.ask(QUESTION)
    content = writing.page.locator(".ai-message .message-content").first
    content.wait_for()
    lengths = []
    for _ in range(12):
        lengths.append(len(content.inner_text()))
        writing.page.wait_for_timeout(150)

    assert len(set(lengths)) >= 4
    assert lengths == sorted(lengths)
    expect(writing.answered()).to_contain_text("Keep the receipt")
    assert writing.page.locator(".ai-message strong, .ai-message .font-bold").first.inner_text() == "24 months"


def test_a_stopped_answer_keeps_what_was_written(writing: Visit) -> None:
    writing.sign_in("initech", "bob")
    writing.ask(QUESTION)
    expect(writing.page.locator(".ai-message")).to_contain_text("Dishwashers carry")
    writing.page.locator("#stop-button").click()
    expect(writing.page.locator(".ai-message").first).to_contain_text("The answer was stopped here.")
    writing.page.wait_for_timeout(1500)  # the turn is being stored

    writing.page.reload()
    answer = writing.page.locator(".ai-message").first
    expect(answer).to_contain_text("The answer was stopped here.")
    assert "as the paper says" not in answer.inner_text()


def test_a_failed_question_is_asked_again(writing: Visit, model: FakeLanguageModel) -> None:
    writing.sign_in("initech", "bob")
    model.forever = "401"
    try:
        writing.ask(QUESTION)
        expect(writing.page.locator(".message-content").last).to_contain_text("The language model does not answer")
    finally:
        model.forever = None
    writing.page.get_by_role("button", name="Ask again").click()

    expect(writing.answered(2)).to_contain_text("24 months")
    expect(writing.page.locator("[data-step-type=user_message]")).to_have_text(QUESTION)


def test_where_nothing_is_indexed_the_page_says_what_to_do(browser: Browser, written: RunningService) -> None:
    with visiting(browser, written) as visit:
        visit.open()
        visit.page.fill("#email", "alice@empty")
        visit.page.fill("#password", "correct horse battery")
        visit.page.keyboard.press("Enter")
        expect(visit.page.locator(".ai-message")).to_contain_text("There are no documents to answer from yet.")
