"""A document that is out for mischief: nothing of it is fetched, run or followed."""

from __future__ import annotations

import pytest
from playwright.sync_api import Dialog, expect

from tests.system_page.browsing import Visit
from tests.system_page.conftest import Beacon

pytestmark = pytest.mark.system


def test_nothing_in_a_document_is_fetched_or_run(visit: Visit, beacon: Beacon) -> None:
    dialogs: list[str] = []

    def opened(dialog: Dialog) -> None:
        dialogs.append(dialog.message)
        dialog.dismiss()

    visit.page.on("dialog", opened)
    visit.sign_in()
    for question in ("Who checks the boiler and when?", "What are the rules of the inspector, beacon, click?"):
        visit.ask(question)
        visit.page.wait_for_timeout(3000)
    answers = visit.page.locator(".message-content")
    expect(answers.nth(1)).to_contain_text("inspector")
    hrefs = [link.get_attribute("href") or "" for link in visit.page.locator(".message-content a").all()]
    assert hrefs
    assert all(href.startswith("/sources/") for href in hrefs)
    assert visit.page.locator(".message-content img, .message-content script, .message-content [onclick]").count() == 0

    visit.open(f"{hrefs[0]}?all=1")
    expect(visit.page.locator("pre")).to_contain_text("<script>window.pwned = 1")
    assert visit.page.locator("script, img, a[onclick]").count() == 0
    assert visit.page.evaluate("window.pwned") is None
    assert dialogs == []
    assert beacon.heard == []
