"""The running page with documents of two tenants, a scripted language model, and a browser."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from playwright.sync_api import Browser

from database.embedded import EmbeddedServer
from pipelines.api import index_paths
from tests.fake_llm import FakeLanguageModel
from tests.support.pdf import pdf_bytes
from tests.support.serving import TENANTS, RunningService, running
from tests.system_page.browsing import Visit, chromium, visiting

PDF_PAGES = [
    ["Manual of the pump"],
    ["Maintenance", "", "The pump needs new oil every 400 hours of work.", "Use only oil of the kind HLP 46."],
    ["Index"],
]

HOSTILE = """\
# Safety of the boiler

The boiler is checked by an inspector every second Tuesday.
<script>window.pwned = 1; new Image().src = "{beacon}/script"</script>
<img src="{beacon}/img.png" onerror="window.pwned = 2">
<a href="#" onclick="window.pwned = 3">click</a>
![beacon]({beacon}/markdown.png)
[inspector](javascript:window.pwned=4)
[rules]({beacon}/rules "title")
<data:text/html,<script>window.pwned=5</script>>
"""


class Beacon:
    """A listener on another port, as an attacker's would be, and what it heard."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        beacon = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                beacon.heard.append(self.path)
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Tests' output stays clean."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


ANSWER = "Dishwashers carry a warranty of **24 months** [1]. Keep the receipt in a drawer, as the paper says [1]."


@pytest.fixture(scope="session")
def beacon() -> Iterator[Beacon]:
    found = Beacon()
    yield found
    found.close()


@pytest.fixture(scope="session")
def documents(tmp_path_factory: pytest.TempPathFactory, beacon: Beacon) -> Path:
    """A folder with a PDF, a long text, and a document that is out for mischief."""
    folder = tmp_path_factory.mktemp("documents")
    folder.chmod(0o755)
    (folder / "pump.pdf").write_bytes(pdf_bytes(PDF_PAGES, title="Manual of the pump"))
    filler = "\n\n".join(f"Paragraph {n} is about nothing in particular." for n in range(300))
    (folder / "garden.md").write_text(
        f"# Things\n\n{filler}\n\n# Roses\n\nThe roses of the garden are cut in March.\n\n# More\n\n{filler}\n",
        encoding="utf-8",
    )
    (folder / "hostile.md").write_text(HOSTILE.replace("{beacon}", beacon.url), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def service(server: EmbeddedServer | None, owner_conninfo: str, documents: Path) -> Iterator[RunningService]:
    """Without a language model: answers are sentences of the documents. A module's own: others empty the users' table."""
    with running(server, owner_conninfo, page=True) as found:
        index_paths([documents], settings=replace(found.settings, tenant="acme"))
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Playwright's event loop runs as long as it is open: no other module's asyncio may meet it."""
    if not os.path.exists("/usr/bin/chromium"):
        pytest.fail("These tests need Chromium: apt-get install chromium")
    with chromium() as found:
        yield found


@pytest.fixture
def visit(browser: Browser, service: RunningService) -> Iterator[Visit]:
    """Somebody's browser; whatever is done in it, it talks to the service alone."""
    with visiting(browser, service) as found:
        yield found
        assert found.foreign == []
        assert found.errors == []


@pytest.fixture(scope="session")
def model() -> Iterator[FakeLanguageModel]:
    """A language model that takes its time."""
    with FakeLanguageModel(answer=ANSWER, token_delay=0.15) as found:
        yield found


@pytest.fixture(scope="module")
def written(server: EmbeddedServer | None, owner_conninfo: str, model: FakeLanguageModel) -> Iterator[RunningService]:
    """With the language model, and a tenant of its own."""
    texts = {"initech": TENANTS["acme"], "empty": {}}
    with running(server, owner_conninfo, page=True, tenants=texts, llm_base_url=model.url, llm_model="fake") as found:
        yield found
