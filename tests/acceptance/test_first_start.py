"""The first lines of docs/deploying.md, run as they stand: from nothing to an answer, in under two minutes."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from dotenv import dotenv_values

from config import SECRETS, VARIABLES
from tests.support.clone import clone_into
from tests.support.compose import PROJECT, merged
from tests.support.compose_database import ComposeDatabase
from tests.tcp_server import free_port

PAGE = PROJECT / "docs" / "deploying.md"
SECONDS = 120
UP = "docker compose up --detach --wait"


@pytest.fixture(scope="module")
def clone(short_folder: Path) -> Iterator[Path]:
    """The project as somebody clones it, without an .env and without data."""
    folder = short_folder / "clone"
    clone_into(folder)
    yield folder
    shutil.rmtree(folder)


def steps() -> list[str]:
    """The commands of the page's first block."""
    block = re.search(r"(?ms)^```bash\n(.*?)^```$", PAGE.read_text(encoding="utf-8"))
    assert block
    return block[1].strip().splitlines()


@pytest.mark.slow
def test_from_nothing_to_an_answer(clone: Path, short_folder: Path) -> None:
    port = free_port()
    unset = {*VARIABLES.values(), *(f"{secret}_FILE" for secret in SECRETS)}
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HF_HUB_OFFLINE": "1",
        "POSTGRES_PORT": str(port),  # another server may have 5432
    }
    database: ComposeDatabase | None = None
    said: dict[str, str] = {}
    began = time.monotonic()
    try:
        for step in steps():
            if step.startswith(UP):
                service = merged(clone / "docker-compose.yml", environment=_dotenv(clone))["services"]["database"]
                database = ComposeDatabase(short_folder / "compose", project=clone, service=service)
                said[step] = "".join(database.up())
                continue
            done = subprocess.run(
                ["sh", "-c", step],
                cwd=clone,
                env=environment,
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
            )
            assert done.returncode == 0, f"{step}\n{done.stdout}{done.stderr}"
            said[step] = done.stdout
        seconds = time.monotonic() - began

        assert database is not None
        examined = json.loads(
            subprocess.run(
                ["python", "synapse.py", "doctor", "--json"], cwd=clone, env=environment, capture_output=True, text=True
            ).stdout
        )
    finally:
        if database is not None:
            database.stop()

    last = list(said.values())[-1]
    assert "118 kilograms" in last
    version = re.search(r"schema version (\d{4}) with pgvector [\d.]+; synapse_app can log in", "".join(said.values()))
    assert version, said
    assert f"vector 0.8.5, schema {version[1]}" in "".join(said.values())
    assert (examined["verdict"], examined["findings"]) == ("healthy", [])
    assert seconds < SECONDS
    print(f"from nothing to an answer: {seconds:.0f} s")

    assert stat.S_IMODE((clone / ".env").stat().st_mode) == 0o600
    for password in (_dotenv(clone)["POSTGRES_PASSWORD"], _dotenv(clone)["SYNAPSE_APP_PASSWORD"]):
        assert password not in "".join(said.values())
        assert password not in database.log.read_text()


def _dotenv(folder: Path) -> dict[str, str]:
    return {name: value or "" for name, value in dotenv_values(folder / ".env").items()}
