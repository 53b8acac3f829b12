"""The page in a real browser: what a person does, from signing in to logging out."""

from __future__ import annotations

from uuid import UUID

import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.support.serving import PASSWORD, RunningService
from tests.system_page.browsing import Visit, visiting

pytestmark = pytest.mark.system

QUESTION = "How long is the warranty of dishwashers?"


def test_an_answer_opens_its_source_and_is_there_after_a_reload(visit: Visit) -> None:
    visit.sign_in()
    visit.ask(QUESTION)
    answer = visit.answered()
    expect(answer).to_contain_text("24 months")

    answer.locator('a[href^="/sources/"]').first.click()
    quote = visit.source().locator("#quote")
    expect(quote).to_contain_text("24 months")
    expect(quote).to_be_in_viewport()
    assert quote.evaluate("mark => getComputedStyle(mark).backgroundColor") == "rgb(255, 229, 138)"
    visit.page.keyboard.press("Escape")
    expect(visit.page.locator("#source")).to_be_hidden()

    visit.page.reload()
    expect(visit.page.locator(".ai-message").first).to_contain_text("24 months")
    assert visit.conversations()[0] == QUESTION


def test_a_quote_deep_in_a_text_is_scrolled_to(visit: Visit) -> None:
    visit.sign_in(user="bob")
    visit.ask("When are the roses of the garden cut?")
    visit.answered().locator('a[href^="/sources/"]').first.click()

    expect(visit.source().locator("#quote")).to_have_text("The roses of the garden are cut in March.")
    expect(visit.source().locator("#quote")).to_be_in_viewport()


def test_a_pdf_is_shown_at_its_page_beside_the_text(visit: Visit) -> None:
    visit.sign_in(user="bob")
    visit.ask("How often does the pump need new oil?")
    visit.answered().locator('a[href^="/sources/"]').first.click()

    expect(visit.source().locator("#quote")).to_contain_text("every 400 hours")
    picture = visit.source().locator('img[alt="Page 2 of pump.pdf"]')
    picture.evaluate("image => image.decode()")
    assert picture.evaluate("image => image.naturalWidth") == 1200


def test_a_bad_mark_with_a_comment_is_stored(visit: Visit) -> None:
    visit.sign_in(user="bob")
    visit.ask(QUESTION)
    visit.answered().locator(".negative-feedback-off").click()
    visit.page.locator("[role=dialog] textarea").fill("Which dishwashers?")
    visit.page.locator("#submit-feedback").click()
    visit.page.locator(".negative-feedback-on").wait_for()

    service = visit.service
    identity = service.service.accounts.identity("acme", "bob")
    session = UUID(visit.page.url.rsplit("/", 1)[-1])
    marked = service.service.conversations.messages(identity, session)[-1].feedback
    assert marked is not None
    assert (marked.mark, marked.comment) == (-1, "Which dishwashers?")

    visit.page.reload()
    visit.page.locator(".negative-feedback-on").wait_for()


def test_filters_narrow_and_are_named(visit: Visit) -> None:
    visit.sign_in(user="bob")
    visit.page.locator("#chat-settings-open-modal").click()
    visit.page.get_by_label("year until").fill("2021")
    visit.page.locator("#confirm").click()
    visit.ask(QUESTION)

    answer = visit.answered()
    expect(answer).to_contain_text("Only documents with year until 2021")
    expect(answer).not_to_contain_text("24 months")


def test_a_conversation_of_the_api_is_continued(visit: Visit) -> None:
    headers = visit.service.headers("acme", "bob")
    asked = httpx.post(f"{visit.service.url}/ask", json={"question": "What is the secret colour?"}, headers=headers)
    session = asked.raise_for_status().json()["session_id"]

    visit.sign_in(user="bob")
    visit.page.locator("#thread-history a", has_text="What is the secret colour?").click()
    expect(visit.page.locator(".ai-message").first).to_contain_text("vermilion")
    visit.ask("Who knows it?")
    visit.answered(2)

    told = httpx.get(f"{visit.service.url}/conversations/{session}", headers=headers).raise_for_status().json()
    assert [message["role"] for message in told["messages"]] == ["user", "assistant"] * 2


def test_conversations_are_renamed_searched_and_deleted(visit: Visit) -> None:
    visit.sign_in("globex", "bob")
    visit.ask("What is the secret colour?")
    visit.answered()
    entry = visit.page.locator("#thread-history a").first
    entry.hover()
    entry.locator("#thread-options").click()
    visit.page.locator("#rename-thread").click()
    visit.page.locator("#name").fill("Colours of Globex")
    visit.page.locator("[role=dialog] button", has_text="Confirm").click()
    expect(entry).to_contain_text("Colours of Globex")

    visit.page.locator("#search-chats-button").click()
    visit.page.locator("[cmdk-input]").fill("turquoise")
    expect(visit.page.locator("[cmdk-item]")).to_have_text("Colours of Globex")
    visit.page.keyboard.press("Escape")

    entry.hover()
    entry.locator("#thread-options").click()
    visit.page.locator("#delete-thread").click()
    visit.page.locator("[role=alertdialog] button", has_text="Confirm").click()
    expect(visit.page.locator("#thread-history")).to_contain_text("No conversations yet")


def test_two_tenants_never_see_each_others_things(browser: Browser, service: RunningService) -> None:
    with visiting(browser, service) as acme, visiting(browser, service) as globex:
        acme.sign_in("acme", "alice")
        acme.ask("What is the secret colour?")
        link = acme.answered().locator('a[href^="/sources/"]').first.get_attribute("href")
        globex.sign_in("globex", "alice")
        globex.ask("What is the secret colour?")
        expect(globex.answered()).to_contain_text("turquoise")

        assert globex.page.inner_text("body").count("vermilion") == 0
        assert globex.conversations() == ["What is the secret colour?"]
        globex.open(link or "")
        assert "There is no such source" in globex.page.inner_text("body")
        globex.page.goto(acme.page.url)
        globex.page.wait_for_url("**/chat")
        assert "vermilion" not in globex.page.inner_text("body")


def test_after_logging_out_the_back_button_shows_nothing(visit: Visit) -> None:
    visit.sign_in()
    visit.ask(QUESTION)
    link = visit.answered().locator('a[href^="/sources/"]').first.get_attribute("href")
    visit.open(link or "")
    expect(visit.page.locator("#quote")).to_be_visible()
    visit.page.go_back()
    stolen = {cookie["name"]: cookie["value"] for cookie in visit.page.context.cookies()}
    visit.page.locator("#user-nav-button").click()
    visit.page.locator("[role=menuitem]", has_text="Log out").click()
    visit.page.wait_for_selector("#email")

    for _ in range(3):
        visit.page.go_back()
        visit.page.wait_for_timeout(300)
        assert "24 months" not in visit.page.inner_text("body")
    assert httpx.get(f"{visit.service.url}/chat/user", cookies=stolen).status_code == 401
    assert httpx.get(visit.service.url + (link or ""), cookies=stolen).status_code == 303


def test_a_copied_answer_is_plain(browser: Browser, service: RunningService) -> None:
    with visiting(browser, service, permissions=["clipboard-read", "clipboard-write"]) as visit:
        visit.sign_in(user="bob")
        visit.ask(QUESTION)
        visit.answered().locator("button").first.click()
        visit.page.wait_for_timeout(500)
        copied = visit.page.evaluate("navigator.clipboard.readText()")

        assert "24 months. [1]" in copied
        assert "/sources/" not in copied
        assert "warranty.md" in copied


def test_on_a_phone_nothing_is_cut_off(browser: Browser, service: RunningService) -> None:
    with visiting(browser, service, viewport={"width": 375, "height": 667}, has_touch=True) as visit:
        visit.sign_in(user="bob")
        assert visit.overflow() == 0
        visit.ask(QUESTION)
        answer = visit.answered()
        assert visit.overflow() == 0
        answer.locator('a[href^="/sources/"]').first.click()
        expect(visit.source().locator("#quote")).to_be_in_viewport()
        assert visit.page.locator("#source").bounding_box() == {"x": 0, "y": 0, "width": 375, "height": 667}
        visit.page.locator("#source button").click()
        expect(visit.page.locator("#source")).to_be_hidden()


def test_it_works_by_keyboard_alone(visit: Visit) -> None:
    visit.open()
    visit.page.wait_for_selector("#email:focus")
    visit.page.keyboard.type("bob@acme")
    visit.page.keyboard.press("Tab")
    visit.page.keyboard.type(PASSWORD)
    visit.page.keyboard.press("Enter")
    visit.page.wait_for_selector("#chat-settings-open-modal")
    visit.page.wait_for_selector("#chat-input:focus")
    visit.page.keyboard.type(QUESTION)
    visit.page.keyboard.press("Enter")
    mark = visit.answered().locator('a[href^="/sources/"]').first
    for _ in range(60):
        visit.page.keyboard.press("Tab")
        if mark.evaluate("link => link === document.activeElement"):
            break
    assert mark.evaluate("link => getComputedStyle(link).outlineStyle") == "solid"
    visit.page.keyboard.press("Enter")
    expect(visit.source().locator("#quote")).to_be_in_viewport()
    visit.page.keyboard.press("Escape")
    assert mark.evaluate("link => link === document.activeElement")
