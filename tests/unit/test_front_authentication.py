"""Nobody gets past the front without a key, and a refusal tells nothing."""

from __future__ import annotations

import statistics
import time
from typing import Any

import pytest
from fastapi import FastAPI, Request

from database.errors import DatabaseUnavailableError
from serving.front.authentication import ATTEMPTS_PER_MINUTE, FAILURE_SECONDS
from serving.identity import client_address, current
from tests.support.front import ANNA, AS_ANNA, KEYS, FrontAccounts, FrontService, client_of, small_app

WRONG: dict[str, dict[str, Any]] = {
    "none": {},
    "unknown": {"Authorization": "Bearer synapse_acme.bert"},
    "another tenant's": {"Authorization": "Bearer synapse_default.anna"},
    "malformed": {"Authorization": "Bearer x"},
    "empty": {"Authorization": "Bearer "},
    "no scheme": {"Authorization": "synapse_acme.anna"},
    "basic": {"Authorization": "Basic c3luYXBzZV9hY21lLmFubmE="},
    "not ascii": {"Authorization": b"Bearer synapse_acme.\xe4"},
    "a megabyte": {"X-Api-Key": "a" * 1_000_000},
    "with spaces inside": {"Authorization": "Bearer synapse_acme .anna"},
}


@pytest.mark.parametrize(
    "headers", [AS_ANNA, {"X-Api-Key": "synapse_acme.anna"}, {"Authorization": "bearer  synapse_acme.anna"}]
)
async def test_a_key_says_who_asks(headers: dict[str, str]) -> None:
    async with client_of(small_app()) as client:
        answer = await client.get("/whoami", headers=headers)
    assert answer.json() == {"tenant": "acme", "user": "anna"}


@pytest.mark.parametrize("headers", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize(
    "path", ["/whoami", "/nowhere", "/documents/x", "/x//whoami", "/live/../whoami", "/chats", "/Live"]
)
async def test_without_one_every_path_gives_the_same_answer(path: str, headers: dict[str, Any]) -> None:
    async with client_of(small_app()) as client:
        answer = await client.get(path, headers={**headers, "X-Request-Id": "same-request"})
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="synapse"'
    error = answer.json()["error"]
    assert (error["code"], error["request_id"]) == ("unauthorized", "same-request")
    assert "synapse_acme" not in answer.text


async def test_refusals_take_the_same_time_whatever_is_wrong() -> None:
    took: dict[str, list[float]] = {}
    for n in range(3):
        for name, headers in WRONG.items():
            async with client_of(small_app(), address=f"10.0.{n}.1") as client:
                began = time.perf_counter()
                await client.get("/whoami", headers=headers)
                took.setdefault(name, []).append(time.perf_counter() - began)
    medians = [statistics.median(times) for times in took.values()]
    assert min(medians) >= FAILURE_SECONDS
    assert max(medians) - min(medians) < 0.05


async def test_guessing_is_stopped_per_address_and_does_not_lock_out_others() -> None:
    service = FrontService()
    app = small_app(service)
    async with client_of(app, address="10.0.0.1") as guesser, client_of(app, address="10.0.0.2") as neighbour:
        assert (await guesser.get("/whoami", headers=AS_ANNA)).status_code == 200
        for n in range(ATTEMPTS_PER_MINUTE):
            assert (await guesser.get("/whoami", headers={"X-Api-Key": f"synapse_acme.{n}"})).status_code == 401
        asked = len(service.accounts.asked)
        refused = await guesser.get("/whoami", headers={"X-Api-Key": "synapse_acme.x"})
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        assert len(service.accounts.asked) == asked, "a guess too many is not looked up"
        assert (await guesser.get("/whoami", headers=AS_ANNA)).status_code == 200, "a key that worked works on"
        assert (await neighbour.get("/whoami", headers={"X-Api-Key": "synapse_acme.x"})).status_code == 401


async def test_a_revoked_key_is_refused_from_the_next_request_on() -> None:
    keys = dict(KEYS)
    app = small_app(FrontService(accounts=FrontAccounts(keys.get)))
    async with client_of(app) as client:
        assert (await client.get("/whoami", headers=AS_ANNA)).status_code == 200
        del keys["synapse_acme.anna"]
        assert (await client.get("/whoami", headers=AS_ANNA)).status_code == 401


async def test_a_database_that_is_away_is_no_wrong_key() -> None:
    def away(_: str) -> None:
        raise DatabaseUnavailableError("synapse_app@db.internal:5432/secret refused the connection.")

    app = small_app(FrontService(accounts=FrontAccounts(away)))
    async with client_of(app) as client:
        answer = await client.get("/whoami", headers=AS_ANNA)
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert "db.internal" not in answer.text


async def test_without_keys_everyone_is_the_local_user() -> None:
    async with client_of(small_app(auth=False, tenant="acme")) as client:
        assert (await client.get("/whoami")).json() == {"tenant": "acme", "user": "local"}


async def test_the_identity_is_known_to_what_runs_for_the_request_and_forgotten_after_it() -> None:
    app = small_app()
    seen = []

    @app.get("/seen")
    async def look() -> None:
        seen.append(current.get())

    async with client_of(app) as client:
        await client.get("/seen", headers=AS_ANNA)
    assert seen == [ANNA]
    assert current.get() is None


async def test_without_keys_the_page_knows_the_local_user_and_may_load_its_files() -> None:
    app, page = small_app(auth=False, requests_per_minute=2), FastAPI()

    @page.get("/file")
    async def file(request: Request) -> str:
        return str(request.state.identity.user_name)

    app.mount("/chat", page)
    async with client_of(app) as client:
        for _ in range(5):
            assert (await client.get("/chat/file")).json() == "local"


@pytest.mark.parametrize(
    ("address", "counted_as"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8:0:0:aaaa:bbbb:cccc:dddd", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unix", "unix"),
    ],
)
def test_attempts_are_counted_per_address_that_someone_has(address: str, counted_as: str) -> None:
    assert client_address({"client": (address, 1)}) == counted_as
