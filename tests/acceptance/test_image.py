"""
The application's image, built and run without Docker: what the Dockerfile's steps leave, and whether it serves.

Needs root, overlayfs and some minutes; the packages' stage is kept in .venv-image, as Docker keeps layers.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest

from tests.support.clone import clone_into
from tests.support.compose import PROJECT, loaded
from tests.support.dockerfile import Builder, Stage, in_context
from tests.tcp_server import APPLICATION_PASSWORD, TcpServer, free_port, psql

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

DOCKERFILE = PROJECT / "deploy" / "Dockerfile"
LARGEST = 1700
"""Megabytes of the image above Debian's and Python's own."""

PLANTED = (
    ".env",
    ".env.production",
    "serving/.env",
    "secrets/postgres_password",
    ".git/config",
    ".synapse/postgres/PG_VERSION",
    ".venv/bin/python",
    "database/__pycache__/sql.cpython-311.pyc",
    "notes/private.md",
    "deploy/supabase/secret.sql",
)

UNPRIVILEGED = "setpriv --reuid 10001 --regid 10001 --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs"
READ_ONLY = 'mount -o remount,ro "$ROOT"; mount -t tmpfs tmpfs "$ROOT/tmp"; mount --bind "$DATA" "$ROOT/data"'
"""As deploy/compose.production.yml runs it."""


@pytest.fixture(scope="module")
def context(short_folder: Path) -> Iterator[Path]:
    """The project, and beside it what must not reach an image."""
    folder = short_folder / "context"
    clone_into(folder)
    for name in PLANTED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("s3cret\n")
    yield folder
    shutil.rmtree(folder)


@dataclass(frozen=True)
class Image:
    """A stage that can be run."""

    builder: Builder
    stage: Stage
    data: Path

    def command(self, *arguments: str, environment: dict[str, str] | None = None) -> list[str]:
        """The entrypoint with arguments, without privileges, on a root that cannot be written to."""
        stage = replace(self.stage, environment=self.stage.environment | (environment or {}))
        command = [*stage.entrypoint, *(arguments or stage.command)]
        return self.builder.command(stage, command, prepare=f"DATA={self.data}\n{READ_ONLY}", final=UNPRIVILEGED)

    def run(self, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run the entrypoint to its end."""
        command = self.command(*arguments, environment=environment)
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def image(context: Path, short_folder: Path) -> Iterator[Image]:
    if os.geteuid() != 0 or not shutil.which("unshare"):
        if os.environ.get("SYNAPSE_REQUIRE_SYSTEM"):
            pytest.fail("root and unshare are required")
        pytest.skip("needs root, for a root folder of its own")
    folder = short_folder / "image"
    folder.mkdir()
    data = folder / "volume"
    data.mkdir()
    os.chown(data, 10001, 10001)  # as Docker gives a new volume the owner that the image's folder has
    builder = Builder(context, folder, kept=PROJECT / ".venv-image", arguments={"TORCH_INDEX": ""})
    yield Image(builder, builder.build(DOCKERFILE, "application"), data)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def environment(short_folder: Path) -> Iterator[dict[str, str]]:
    """A database elsewhere, as compose names it to the image, with our schema."""
    server = TcpServer(short_folder / "image-tcp")
    server.start()
    assert psql(server.tcp(), "-f", "init.sql").returncode == 0
    variables = server.socket_environment("synapse") | {"SYNAPSE_APP_PASSWORD": APPLICATION_PASSWORD}
    subprocess.run([PROJECT / "deploy" / "application_login.sh"], env=variables, check=True, capture_output=True)
    yield {
        "DATABASE_URL": server.tcp(user="synapse_app", password=APPLICATION_PASSWORD),
        "DATABASE_OWNER_URL": server.tcp(),
    }
    server.stop()


def test_the_context_has_what_is_named_and_nothing_else(context: Path) -> None:
    readable = in_context(context)
    assert not {name for name in readable if "s3cret" in (context / name).read_text(errors="replace")}
    assert "serving/app.py" in readable
    assert {name.split("/")[0] for name in readable} == {
        "LICENSE",
        "commands",
        "components",
        "config.py",
        "database",
        "deploy",
        "evaluation",
        "migrate_from_chroma.py",
        "migration",
        "pipelines",
        "requirements-dev.txt",
        "requirements-serve.txt",
        "requirements.txt",
        "serving",
        "synapse.py",
    }


def test_compose_asks_the_same_of_its_health(image: Image) -> None:
    app = loaded(PROJECT / "docker-compose.yml")["services"]["app"]
    assert app["healthcheck"]["test"] == ["CMD", *image.stage.healthcheck]
    assert app["command"] == image.stage.command


def test_what_the_image_holds(image: Image) -> None:
    app = image.stage.upper / "app"
    files = {str(path.relative_to(app)) for path in app.rglob("*") if path.is_file()}
    assert files == image.builder.copied - {"requirements.txt", "requirements-serve.txt", "deploy/prune_packages.sh"}
    assert not [name for name in files if name in PLANTED or name.startswith("tests/")]
    assert (image.stage.user, image.stage.healthcheck) == ("10001:10001", ["python", "deploy/ready.py"])

    measure = replace(image, stage=replace(image.stage, entrypoint=["du", "-sm"], command=["/opt/venv", "/app"]))
    sizes = [int(line.split()[0]) for line in measure.run().stdout.splitlines()]
    print(f"the image adds {sum(sizes)} MB to its base")
    assert 500 < sum(sizes) < LARGEST
    imported = replace(image, stage=replace(image.stage, entrypoint=["python", "-c"], command=["import pip"]))
    assert "No module named 'pip'" in imported.run().stderr


def test_without_a_database_it_says_what_it_needs(image: Image) -> None:
    done = image.run()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("DATABASE_URL or DATABASE_URL_FILE was expected, but neither is set")
    assert image.run("index", "--help").stdout.startswith("Usage: synapse.py index")


def test_upgrade_and_examination(image: Image, environment: dict[str, str]) -> None:
    """What doctor finds is said and stops nothing; a server without vectors does."""
    upgrade = replace(image, stage=replace(image.stage, entrypoint=["sh", "/app/deploy/upgrade.sh"], command=[]))
    done = upgrade.run(environment=environment)
    assert "1. Schema\nThe schema is at version" in done.stdout, done.stderr
    assert "2. Extension, schema" in done.stdout
    assert re.search(r"(?m)^✓ connection", done.stdout)
    assert "✗" in done.stdout, "a fault was expected: the server of the tests runs without fsync"
    assert done.stdout.endswith("The service starts all the same; what is above wants to be mended.\n")
    assert done.returncode == 0
    away = dict.fromkeys(environment, f"host=127.0.0.1 port={free_port()} user=postgres dbname=synapse")
    done = upgrade.run(environment=away)
    assert done.returncode == 1
    assert "2." not in done.stdout


def test_it_serves(image: Image, environment: dict[str, str]) -> None:
    (image.data / "warranty.md").write_text("The warranty of dishwashers is 24 months.")
    (image.data / "database_url").write_text(f"{environment['DATABASE_URL']}\n")
    environment = {"DATABASE_URL_FILE": "/data/database_url"}  # as a secret; the owner's is not for the service
    assert image.run("index", "/data/warranty.md", environment=environment).returncode == 0
    image.run("users", "create", "ann", environment=environment)
    made = image.run("keys", "create", "ann", environment=environment)
    key = re.search(r"synapse_default\.\S+", made.stdout)
    assert key, made.stderr
    port = free_port()
    variables = environment | {"SERVE_PORT": str(port)}
    with running(image, variables) as process:
        check = replace(image, stage=replace(image.stage, entrypoint=[], command=image.stage.healthcheck))
        deadline = time.monotonic() + 120
        while (health := check.run(environment=variables)).returncode != 0:
            assert time.monotonic() < deadline, health.stderr
            assert process.poll() is None
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert re.search(r"(?m)^Uid:\s+10001\s+10001", status)
        assert re.search(r"(?m)^CapEff:\s+0+$", status)
        answer = httpx.post(
            f"http://127.0.0.1:{port}/ask",
            json={"question": "How long is the warranty of dishwashers?"},
            headers={"Authorization": f"Bearer {key[0]}"},
            timeout=60,
        )
        assert "24 months" in answer.json()["answer"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=40) == 0
    assert check.run(environment=variables).returncode == 1


def test_backups_are_made_and_the_health_check_sees_them(image: Image, environment: dict[str, str]) -> None:
    script = replace(image, stage=replace(image.stage, entrypoint=["sh", "/app/deploy/backup.sh"], command=[]))
    variables = environment | {"BACKUP_FOLDER": "/data/backups", "BACKUP_EVERY": "60", "BACKUP_KEEP": "1"}
    assert script.run("check", environment=variables).returncode == 1
    (image.data / "backups").mkdir()
    os.chown(image.data / "backups", 10001, 10001)
    with running(script, variables) as process:
        deadline = time.monotonic() + 90
        while script.run("check", environment=variables).returncode != 0:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    assert [path for path in (image.data / "backups").iterdir() if not path.name.startswith(".")]


@contextmanager
def running(image: Image, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """The image's program until it is told to stop; the process is the program's own, as in a container."""
    process = subprocess.Popen(
        image.command(environment=environment), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    threading.Thread(target=process.stdout.read, daemon=True).start()
    try:
        yield process
    finally:
        process.kill()
        process.wait()
