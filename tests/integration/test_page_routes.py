"""The page without a browser: who gets in, which routes exist, what answers say of themselves, what is stored where."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import httpx
import psycopg
import pytest

from database.embedded import EmbeddedServer
from pipelines.api import delete_source, index_paths
from tests.support.pdf import pdf_bytes
from tests.support.serving import PASSWORD, RunningService, running

PROJECT = Path(__file__).parents[2]
REPORT = [["Report"], ["The reservoir holds 40 litres of water."]]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reports")
    folder.chmod(0o755)
    (folder / "report.pdf").write_bytes(pdf_bytes(REPORT, title="Report"))
    return folder / "report.pdf"


@pytest.fixture(scope="module")
def service(server: EmbeddedServer | None, owner_conninfo: str, report: Path) -> Iterator[RunningService]:
    with running(server, owner_conninfo, page=True) as found:
        index_paths([report.parent], settings=replace(found.settings, tenant="acme"))
        yield found


@pytest.fixture
def stranger(service: RunningService) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=30) as found:
        yield found


@pytest.fixture
def alice(service: RunningService) -> Iterator[httpx.Client]:
    with signed_in(service, "alice@acme") as found:
        yield found


@contextmanager
def signed_in(service: RunningService, login: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=30) as client:
        client.post("/chat/login", data={"username": login, "password": PASSWORD}).raise_for_status()
        yield client


def asked(service: RunningService, question: str, *, user: str = "alice") -> dict[str, object]:
    """Ask over the API; the answer can be opened on the page."""
    answer = httpx.post(f"{service.url}/ask", json={"question": question}, headers=service.headers("acme", user))
    told: dict[str, object] = answer.raise_for_status().json()
    return told


ROUTES_BEHIND_THE_LOGIN = [
    ("GET", "/chat/user"),
    ("GET", "/chat/project/settings"),
    ("POST", "/chat/project/threads"),
    ("GET", f"/chat/project/thread/{UUID(int=1)}"),
    ("PUT", "/chat/project/thread"),
    ("DELETE", "/chat/project/thread"),
    ("PUT", "/chat/feedback"),
    ("DELETE", "/chat/feedback"),
    ("POST", "/chat/project/action"),
    ("GET", "/chat/ws/socket.io/?EIO=4&transport=polling"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES_BEHIND_THE_LOGIN)
def test_strangers_get_nowhere(stranger: httpx.Client, method: str, path: str) -> None:
    assert stranger.request(method, path).status_code == 401
    assert stranger.request(method, path, headers={"Authorization": "Bearer x"}).status_code == 401
    forged = {"Cookie": "synapse_page_token=x; access_token=x; synapse_session=x"}
    assert stranger.request(method, path, headers=forged).status_code == 401


def test_of_chainlits_other_routes_none_exists(alice: httpx.Client) -> None:
    import chainlit.server

    known = {"/login", "/logout", "/auth/config", "/set-session-cookie"}
    known |= {path.removeprefix("/chat").split("?")[0] for _, path in ROUTES_BEHIND_THE_LOGIN}
    public = ("/public/", "/assets/", "/favicon", "/logo", "/avatars/", "/project/translations")
    checked = 0
    for route in chainlit.server.router.routes:
        path = getattr(route, "path", "")
        if path in known or path.startswith(public) or path == "/project/thread/{thread_id}":
            continue
        for method in getattr(route, "methods", set()) - {"HEAD"}:
            status = alice.request(method, f"/chat{path.replace('{', '').replace('}', '')}").status_code
            assert status == 404, f"{method} {path}"
            checked += 1
    assert checked >= 15


def test_the_cookie_is_for_the_service_alone(service: RunningService, stranger: httpx.Client) -> None:
    cookie = stranger.post("/chat/login", data={"username": "alice@acme", "password": PASSWORD}).headers["set-cookie"]

    assert cookie.startswith("synapse_session=")
    assert {"HttpOnly", "SameSite=lax", "Path=/"} <= set(cookie.split("; "))
    assert "Secure" not in cookie  # plain http, as here; over https see below


def test_over_https_the_cookie_is_secure(service: RunningService) -> None:
    from serving.page.door import is_secure

    assert is_secure({"scheme": "https"}, None)
    assert is_secure({"scheme": "http"}, "https://ask.example.org")
    assert not is_secure({"scheme": "http"}, "http://ask.example.org")


@pytest.mark.parametrize("login", ["nobody@acme", "alice@nowhere", "alice", "alice@acme@acme", "", "alice@acme'--"])
def test_wrong_logins_are_told_apart_by_nothing(stranger: httpx.Client, login: str) -> None:
    answer = stranger.post("/chat/login", data={"username": login, "password": "wrong password"})

    assert (answer.status_code, answer.json()) == (401, {"detail": "credentialssignin"})


def test_wrong_passwords_are_slowed_down() -> None:
    from serving.page.sessions import Patience

    patience = Patience()
    for _ in range(5):
        assert patience.wait("ann", "10.0.0.1") == 0
        patience.failed("ann", "10.0.0.1")
    assert 290 < patience.wait("ann", "10.0.0.1") <= 300
    assert patience.wait("ann", "10.0.0.2") == 0  # whoever she is, she is not locked out
    for n in range(20):
        patience.failed("ann", f"10.0.1.{n}")
    assert patience.wait("ann", "10.0.0.2") > 0
    assert patience.wait("bob", "10.0.0.1") == 0


def test_right_passwords_are_never_slowed_down() -> None:
    from serving.page.sessions import Patience

    patience = Patience()
    for n in range(300):  # an office behind one address in the morning
        assert patience.wait(f"user{n}", "10.0.0.1") == 0
        patience.failed(f"user{n}", "10.0.0.1")
        patience.succeeded(f"user{n}", "10.0.0.1")


def test_the_sixth_wrong_password_waits(service: RunningService) -> None:
    with httpx.Client(base_url=service.url) as client:
        tries = [
            client.post("/chat/login", data={"username": "carol@globex", "password": f"wrong {n}"}) for n in range(6)
        ]

    assert [answer.status_code for answer in tries] == [401] * 5 + [429]
    assert int(tries[-1].headers["retry-after"]) > 200


@pytest.mark.parametrize(
    "forged",
    ["", ".", "a.b", "e30=.0", "e30=.\N{SNOWMAN}".encode().decode("latin-1"), "x" * 5000, "eyJ1c2VyIjogIngifQ==."],
)
def test_forged_cookies_open_nothing(stranger: httpx.Client, forged: str) -> None:
    headers = {b"Cookie": f"synapse_session={forged}".encode("latin-1")}

    assert stranger.get("/chat/user", headers=headers).status_code == 401


def test_a_changed_cookie_opens_nothing(service: RunningService, alice: httpx.Client, stranger: httpx.Client) -> None:
    import base64

    body, _, signature = alice.cookies["synapse_session"].partition(".")
    other = base64.urlsafe_b64encode(base64.urlsafe_b64decode(body).replace(b'"acme"', b'"globex"')).decode()

    assert alice.get("/chat/user").json()["identifier"] == "alice@acme"
    assert stranger.get("/chat/user", cookies={"synapse_session": f"{other}.{signature}"}).status_code == 401


def test_after_logging_out_the_cookie_is_worthless(service: RunningService) -> None:
    with signed_in(service, "bob@acme") as bob:
        copy = dict(bob.cookies)
        bob.post("/chat/logout").raise_for_status()

        assert "synapse_session" not in bob.cookies
        assert httpx.get(f"{service.url}/chat/user", cookies=copy).status_code == 401


def test_a_deleted_user_is_out(service: RunningService) -> None:
    accounts = service.service.accounts
    accounts.create_user("globex", "carl", password=PASSWORD)
    with signed_in(service, "carl@globex") as carl:
        accounts.delete_user("globex", "carl")

        assert carl.get("/chat/user").status_code == 401
        accounts.create_user("globex", "carl", password=PASSWORD)
        assert carl.get("/chat/user").status_code == 401


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
def test_other_sites_cannot_use_the_cookie(alice: httpx.Client, origin: str) -> None:
    body = {"pagination": {"first": 1}, "filter": {}}

    assert alice.post("/chat/project/threads", json=body).status_code == 200
    assert alice.post("/chat/project/threads", json=body, headers={"Origin": origin}).status_code == 403
    foreign = {"Sec-Fetch-Site": "cross-site"}
    assert alice.post("/chat/project/threads", json=body, headers=foreign).status_code == 403


def test_answers_are_not_kept_and_fetch_nothing_from_elsewhere(alice: httpx.Client) -> None:
    for path in ("/chat/", "/chat/thread/x", "/chat/user", "/chat/project/settings"):
        headers = alice.get(path).headers
        assert headers["cache-control"] == "no-store"
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'self'"
        assert policy["img-src"] == "'self' data:"
        assert "unsafe" not in policy["script-src"]
        assert policy["frame-ancestors"] == "'none'"
    page = alice.get("/chat/").text
    assert "//" not in page.replace("http://www.w3.org", "")


def test_a_source_is_for_whoever_got_the_answer(service: RunningService, alice: httpx.Client) -> None:
    answer = asked(service, "How many litres of water does the reservoir hold?")
    path = f"/sources/{answer['message_id']}/1"

    shown = alice.get(path)
    assert '<mark id="quote" tabindex="-1">The reservoir holds 40 litres of water.</mark>' in shown.text
    assert shown.headers["content-security-policy"].startswith("default-src 'none'; img-src 'self'; style-src 'self';")
    picture = alice.get(f"{path}/page/2.png")
    assert (picture.headers["content-type"], picture.content[:4]) == ("image/png", b"\x89PNG")
    assert alice.get(f"{path}/page/9.png").status_code == 404
    assert alice.get(f"/sources/{answer['message_id']}/99").status_code == 404
    for login in ("bob@acme", "alice@globex"):
        with signed_in(service, login) as other:
            assert other.get(path).status_code == 404
            assert other.get(f"{path}/page/2.png").status_code == 404
    assert httpx.get(service.url + path).status_code == 303


def test_a_file_that_changed_is_not_shown_for_the_text(
    service: RunningService, alice: httpx.Client, report: Path
) -> None:
    answer = asked(service, "How many litres of water does the reservoir hold?")
    path, before = f"/sources/{answer['message_id']}/1", report.read_bytes()
    try:
        report.write_bytes(pdf_bytes([["Other"], ["Something else."]]))
        shown = alice.get(path).text
        assert "The original file is not there any more, or was changed" in shown
        assert "<img" not in shown
        assert alice.get(f"{path}/page/2.png").status_code == 404
    finally:
        report.write_bytes(before)


def test_a_source_that_is_gone_leaves_its_quote(service: RunningService, alice: httpx.Client) -> None:
    answer = asked(service, "What is the secret colour of Acme?")
    delete_source("acme-only.md", settings=replace(service.settings, tenant="acme"))

    shown = alice.get(f"/sources/{answer['message_id']}/1").text

    assert "This source is not indexed any more." in shown
    assert "vermilion" in shown


def test_chainlits_tables_are_not_there(service: RunningService, owner_conninfo: str, alice: httpx.Client) -> None:
    asked(service, "How long is the warranty of dishwashers?")
    alice.post("/chat/project/threads", json={"pagination": {"first": 5}, "filter": {}}).raise_for_status()
    with psycopg.connect(owner_conninfo) as connection:
        names = {row[0].lower() for row in connection.execute("SELECT relname FROM pg_class WHERE relkind = 'r'")}

    assert names & {"thread", "threads", "step", "steps", "element", "elements", "user"} == set()


def test_nothing_is_written_into_the_users_folder(tmp_path: Path) -> None:
    """Chainlit writes its settings, translations and files where a program was started, unless it is told otherwise."""
    (tmp_path / ".env").write_text("SYNAPSE_TEST_LEAK=1\n", encoding="utf-8")
    program = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); from serving.page.library import load_chainlit; load_chainlit();"
        "print(os.environ.get('SYNAPSE_TEST_LEAK'), os.environ.get('CHAINLIT_APP_ROOT'))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(PROJECT)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
    )

    assert run.stdout.split() == ["None", "None"]
    assert [path.name for path in tmp_path.iterdir()] == [".env"]


def test_the_root_leads_to_the_page(stranger: httpx.Client) -> None:
    found = stranger.get("/")
    assert (found.status_code, found.headers["location"]) == (307, "/chat")
