"""Files that clients upload: where they go, what is refused, and what a restart finds."""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from database.embedded import EmbeddedServer
from serving.front.refusals import Refusal
from serving.multipart import LONGEST_NAME, safe_name
from serving.upload_jobs import UploadJob
from tests.support.serving import RunningService, running

LIMIT = 200_000


@pytest.fixture(scope="module")
def service(server: EmbeddedServer | None, owner_conninfo: str) -> Iterator[RunningService]:
    with running(server, owner_conninfo, max_file_bytes=LIMIT) as found:
        yield found


@pytest.fixture
def client(service: RunningService) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, headers=service.headers(), timeout=30) as found:
        yield found


def folder(service: RunningService, tenant: str = "acme") -> Path:
    return Path(os.path.realpath(service.settings.home)) / "uploads" / tenant


def left_behind(service: RunningService, tenant: str = "acme") -> list[str]:
    """What stands below a tenant's folder, but for finished files and the states of jobs."""
    found = folder(service, tenant) / ".incoming"
    return [str(path) for path in found.rglob("*")]


def upload(client: httpx.Client, files: dict[str, bytes], **params: Any) -> httpx.Response:
    parts = [("files", (name, io.BytesIO(data))) for name, data in files.items()]
    return client.post("/documents", files=parts, params=params)


def ended(client: httpx.Client, job_id: str, *, seconds: float = 60) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while True:
        job: dict[str, Any] = client.get(f"/documents/jobs/{job_id}").json()
        if job["ended_at"]:
            return job
        assert time.monotonic() < deadline, job
        time.sleep(0.05)


def test_an_uploaded_file_is_found_replaced_and_removed(service: RunningService, client: httpx.Client) -> None:
    answer = upload(client, {"rockets.md": b"# Rockets\n\nThe rocket Alpha reaches an altitude of 90 km."})
    assert answer.status_code == 202
    begun = answer.json()
    assert (begun["total"], begun["failed"]) == (1, [])
    job = ended(client, begun["id"])
    assert (job["stage"], job["done"], job["failed"]) == ("done", 1, [])
    assert job["chunks"] >= 1
    (source,) = job["sources"]
    assert source == str(folder(service) / "rockets.md")

    question = {"question": "What altitude does the rocket Alpha reach?"}
    assert "90 km" in client.post("/ask", json=question).json()["answer"]
    with httpx.Client(base_url=service.url, headers=service.headers("globex"), timeout=30) as stranger:
        assert "90 km" not in stranger.post("/search", json=question).text
        assert stranger.get("/documents").json()["sources"][0]["source"] == "globex-only.md"
        assert stranger.delete(f"/documents/{source}").status_code == 404
        assert stranger.get(f"/documents/jobs/{job['id']}").status_code == 404

    taken = upload(client, {"rockets.md": b"The rocket Alpha reaches an altitude of 120 km."})
    assert taken.status_code == 409
    assert "replace=true" in taken.json()["error"]["hint"]
    again = upload(client, {"rockets.md": b"The rocket Alpha reaches an altitude of 120 km."}, replace="true")
    assert ended(client, again.json()["id"])["stage"] == "done"
    assert "120 km" in client.post("/ask", json=question).json()["answer"]

    removed = client.delete(f"/documents/{source}").json()
    assert removed == {"source": source, "chunks": removed["chunks"], "file_removed": True}
    assert removed["chunks"] >= 1
    assert not Path(source).exists()
    assert client.delete(f"/documents/{source}").status_code == 404
    assert "km" not in client.post("/ask", json=question).json()["answer"]
    assert left_behind(service) == []


def test_several_files_and_one_that_cannot_be_read(client: httpx.Client) -> None:
    answer = upload(client, {"good.txt": b"Bees make honey.", "bad.pdf": b"%PDF-1.4 no pdf at all"})
    job = ended(client, answer.json()["id"])
    assert (job["stage"], job["done"], job["total"]) == ("done", 2, 2)
    assert [one["name"] for one in job["failed"]] == ["bad.pdf"]
    assert job["failed"][0]["reason"]
    kept_out = {one["source"].rsplit("/", 1)[-1]: one["reason"] for one in client.get("/documents").json()["sources"]}
    assert kept_out["bad.pdf"] is not None
    assert kept_out["good.txt"] is None


def test_an_upload_is_its_users_alone(service: RunningService, client: httpx.Client) -> None:
    job = upload(client, {"private.txt": b"x"}).json()
    with httpx.Client(base_url=service.url, headers=service.headers("acme", "bob")) as bob:
        assert bob.get(f"/documents/jobs/{job['id']}").status_code == 404
    ended(client, job["id"])


def test_a_source_that_was_not_uploaded_keeps_its_file(
    service: RunningService, client: httpx.Client, tmp_path: Path
) -> None:
    """Also one whose name leads into the uploads by a detour."""
    from dataclasses import replace

    from haystack import Document

    from pipelines.api import index_documents

    elsewhere = tmp_path / "elsewhere.md"
    elsewhere.write_text("Whales sing.")
    detour = f"{folder(service)}/../../../../..{elsewhere}"
    settings = replace(service.settings, tenant="acme")
    index_documents([Document(content="Whales sing.", meta={"source": detour})], settings=settings)
    removed = client.request("DELETE", "/documents/" + detour.replace("..", "%2E%2E"))
    assert removed.status_code in (200, 404)  # clients and servers may resolve the dots
    assert elsewhere.exists()


@pytest.mark.parametrize(
    ("files", "status"),
    [
        ({"program.exe": b"MZ"}, 415),
        ({"noextension": b"x"}, 415),
        ({"handbook.meta.json": b"{}"}, 415),
        ({"....": b"x"}, 400),
        ({"x" * 300 + ".md": b"x"}, 400),
        ({"big.txt": b"x" * (LIMIT + 1)}, 413),
        ({"fine.md": b"x", "big.txt": b"x" * (LIMIT + 1)}, 413),
        ({f"{n}.md": b"x" for n in range(101)}, 413),
    ],
    ids=["kind", "no kind", "sidecar", "no name", "long name", "large", "one of them large", "many"],
)
def test_what_is_refused_leaves_nothing(
    service: RunningService, client: httpx.Client, files: dict[str, bytes], status: int
) -> None:
    before = sorted(folder(service).glob("*"))
    answer = upload(client, files)
    assert answer.status_code == status, answer.text
    assert set(answer.json()["error"]) == {"code", "message", "hint", "request_id"}
    assert sorted(folder(service).glob("*")) == before
    assert left_behind(service) == []


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b"{}", "application/json"),
        (b"", "multipart/form-data"),
        (b"nonsense", "multipart/form-data; boundary=x"),
        (b"--x\r\n", "multipart/form-data; boundary=x"),
        (b"--x--\r\n", "multipart/form-data; boundary=x"),
        (b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--x--\r\n', "multipart/form-data; boundary=x"),
        (
            b'--x\r\nContent-Disposition: form-data; name="a"; filename="a.md"\r\n\r\nbroken off',
            "multipart/form-data; boundary=x",
        ),
        (b"--" + b"x" * 500, "multipart/form-data; boundary=" + "x" * 500),
    ],
)
def test_malformed_bodies_are_refused(
    service: RunningService, client: httpx.Client, content: bytes, content_type: str
) -> None:
    answer = client.post("/documents", content=content, headers={"Content-Type": content_type})
    assert answer.status_code in (400, 415), answer.text
    assert left_behind(service) == []
    assert not (folder(service) / "a.md").exists()


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("handbook.md", "handbook.md"),
        ("../../etc/cron.d/evil.md", "evil.md"),
        ("..\\..\\windows\\evil.md", "evil.md"),
        ("/etc/passwd.txt", "passwd.txt"),
        (".hidden.md", "hidden.md"),
        ("a\x00b\x1b[31m.md", "a_b_[31m.md"),
        ("line\nbreak.md", "line_break.md"),
        ("u\u0308ber.md", "über.md"),
        ("\u202egnp.md", "_gnp.md"),
        (" spaced .md", "spaced .md"),
        ("\udc80.md", "_.md"),
    ],
)
def test_names_lead_nowhere_else(given: str, name: str) -> None:
    assert safe_name(given) == name


@pytest.mark.parametrize("given", ["", ".", "..", "/", "...", "ü" * LONGEST_NAME + ".md"])
def test_names_that_are_none_are_refused(given: str) -> None:
    with pytest.raises(Refusal):
        safe_name(given)


def test_a_client_that_breaks_off_leaves_nothing(service: RunningService) -> None:
    host, port = service.url.removeprefix("http://").split(":")
    head = (
        "POST /documents HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        f"Authorization: {service.headers()['Authorization']}\r\nContent-Length: 100000\r\n\r\n"
        '--x\r\nContent-Disposition: form-data; name="files"; filename="half.md"\r\n\r\nhalf of it'
    )
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode())
        deadline = time.monotonic() + 5
        while not left_behind(service):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    while left_behind(service):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert not (folder(service) / "half.md").exists()


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """As a full disk would have it: writing more fails, in this whole process."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals are the main thread's")
def test_a_full_disk_is_said_and_leaves_nothing(service: RunningService, client: httpx.Client) -> None:
    with files_of_at_most(50_000):
        answer = upload(client, {"much.txt": b"x" * 100_000})
    assert answer.status_code == 507, answer.text
    assert answer.json()["error"]["code"] == "no_room"
    assert left_behind(service) == []
    assert not (folder(service) / "much.txt").exists()


def test_a_restart_goes_on_where_it_was(server: EmbeddedServer | None, owner_conninfo: str, tmp_path: Path) -> None:
    """One upload that was accepted but not put in place, one half done, one request that was cut off."""
    place = tmp_path / "uploads" / "initech"
    user = UUID(int=7)
    accepted = UploadJob(tenant="initech", user_id=user, names=["accepted.md"], folder=place)
    accepted.save()
    accepted.incoming.mkdir(parents=True)
    (accepted.incoming / "0").write_text("Owls hunt at night.")
    half = UploadJob(tenant="initech", user_id=user, names=["one.md", "two.md"], folder=place, stage="indexing", done=1)
    half.save()
    (place / "two.md").write_text("Foxes dig burrows.")
    cut_off = place / ".incoming" / str(uuid4())
    cut_off.mkdir(parents=True)
    (cut_off / "0").write_text("Half of a")
    (place / ".jobs" / "damaged.json").write_text('{"id": ')

    with running(server, owner_conninfo, tenants={"initech": {}}, home=tmp_path) as service:
        jobs = service.service.uploads._jobs
        deadline = time.monotonic() + 60
        while not all(job.is_over for job in jobs.values()):
            assert time.monotonic() < deadline, jobs
            time.sleep(0.05)
        assert {job.id: (job.stage, job.done) for job in jobs.values()} == {
            accepted.id: ("done", 1),
            half.id: ("done", 2),
        }
        with httpx.Client(base_url=service.url, headers=service.headers("initech"), timeout=30) as client:
            known = {one["source"].rsplit("/", 1)[-1] for one in client.get("/documents").json()["sources"]}
    assert {"accepted.md", "two.md"} <= known
    assert not cut_off.exists()
    assert json.loads(half.file.read_text())["stage"] == "done"
