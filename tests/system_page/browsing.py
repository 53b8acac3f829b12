"""A browser on the page: what a person does with it, and what must hold whatever they do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, FrameLocator, Locator, Page, Request, sync_playwright

from tests.support.serving import PASSWORD, RunningService

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium, headless."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@dataclass
class Visit:
    """
    One person's browser.

    :param foreign: Requests that went anywhere but to the service.
    :param errors: What scripts of the page failed with, and what its policy forbade.
    """

    page: Page
    service: RunningService
    foreign: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def open(self, path: str = "/chat/") -> None:
        """Go somewhere."""
        self.page.goto(self.service.url + path)

    def sign_in(self, tenant: str = "acme", user: str = "alice", password: str = PASSWORD) -> None:
        """Fill in the form, and wait until a question can be asked."""
        self.open()
        self.page.fill("#email", f"{user}@{tenant}")
        self.page.fill("#password", password)
        self.page.keyboard.press("Enter")
        self.page.wait_for_selector("#chat-input")
        self.page.wait_for_selector("#chat-settings-open-modal")  # the connection stands

    def ask(self, question: str) -> None:
        """Send a question."""
        self.page.locator("#chat-input").fill(question)
        self.page.locator("#chat-submit:not([disabled])").click()

    def answered(self, number: int = 1) -> Locator:
        """The answer of this number, when it is complete: then it can be marked."""
        answer = self.page.locator(".ai-message").nth(number - 1)
        answer.locator(".positive-feedback-off, .positive-feedback-on").wait_for(timeout=30_000)
        return answer

    def source(self) -> FrameLocator:
        """The source that is open beside the chat."""
        return self.page.frame_locator("#source iframe")

    def conversations(self) -> list[str]:
        """Titles in the side bar."""
        return [text.strip() for text in self.page.locator("#thread-history a").all_inner_texts()]

    def overflow(self) -> int:
        """Pixels that the page is wider than the window."""
        wide: int = self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        return wide


@contextmanager
def visiting(browser: Browser, service: RunningService, **options: Any) -> Iterator[Visit]:
    """
    A browser of its own, with no cookies.

    :param options: Of the browser's context, such as its viewport.
    """
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
    context.set_default_timeout(20_000)
    visit = Visit(context.new_page(), service)

    def requested(request: Request) -> None:
        if not request.url.startswith((f"{service.url}/", "data:", "blob:", "about:")):
            visit.foreign.append(request.url)

    def said(message: ConsoleMessage) -> None:
        if "Content Security" in message.text:
            visit.errors.append(message.text)

    context.on("request", requested)
    visit.page.on("pageerror", lambda error: visit.errors.append(str(error)))
    visit.page.on("console", said)
    try:
        yield visit
    finally:
        context.close()
