"""docker-compose.yml against the compose specification, and .env.example against whatever reads it."""

from __future__ import annotations

import re
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from dotenv import dotenv_values

from config import VARIABLES, Settings
from database.embedded import SERVER_SETTINGS
from database.ranking import Ranking

PROJECT = Path(__file__).parents[2]
COMPOSE = PROJECT / "docker-compose.yml"
EXAMPLE = PROJECT / ".env.example"


@pytest.fixture
def service() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]["database"]
    return found


def checked(path: Path) -> subprocess.CompletedProcess[str]:
    """Check a file against the schema that check-jsonschema carries; nothing is fetched."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_it_keeps_to_the_compose_specification(tmp_path: Path) -> None:
    assert checked(COMPOSE).returncode == 0, checked(COMPOSE).stdout
    wrong = tmp_path / "docker-compose.yml"
    wrong.write_text(COMPOSE.read_text().replace("shm_size", "shared_memory"))
    assert "shared_memory" in checked(wrong).stdout


def test_the_volume_lies_where_the_image_keeps_its_data(service: dict[str, Any]) -> None:
    assert service["image"] == "pgvector/pgvector:pg18"
    assert "database:/var/lib/postgresql" in service["volumes"]


def test_what_it_mounts_is_there(service: dict[str, Any]) -> None:
    mounted = [volume.split(":")[0] for volume in service["volumes"] if volume.startswith("./")]
    assert mounted == ["./init.sql", "./deploy/application_login.sh"]
    for path in mounted:
        assert (PROJECT / path).is_file()


def test_it_listens_on_this_machine_alone(service: dict[str, Any]) -> None:
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_shared_memory_holds_an_index_build(service: dict[str, Any]) -> None:
    settings = dict(argument.removeprefix("--").split("=") for argument in service["command"][1:])
    assert settings == {name: value for name, value in SERVER_SETTINGS.items() if name in settings}
    assert (service["shm_size"], settings["maintenance_work_mem"]) == ("1gb", "512MB")


def test_passwords_are_required(service: dict[str, Any]) -> None:
    for variable in ("POSTGRES_PASSWORD", "SYNAPSE_APP_PASSWORD"):
        assert service["environment"][variable].startswith(f"${{{variable}:?")


def test_the_example_describes_every_variable() -> None:
    described = set(re.findall(r"(?m)^#([A-Z0-9_]+)=", EXAMPLE.read_text()))
    wanted = set(VARIABLES.values()) | set(re.findall(r"\$\{([A-Z0-9_]+)", COMPOSE.read_text()))
    assert described == wanted


def test_the_example_shows_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every line uncommented gives the settings that no line gives, but for those said to have no default."""
    for variable in VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)
    env_file = tmp_path / ".env"
    env_file.write_text(re.sub(r"(?m)^#([A-Z0-9_]+)=", r"\1=", EXAMPLE.read_text()))
    examples = {
        "home",
        "database_url",
        "database_owner_url",
        "table_name",
        "llm_base_url",
        "rerank_model",
        "from_environment",
    }
    with monkeypatch.context() as patched:
        for variable in VARIABLES.values():
            patched.setenv(variable, dotenv_values(env_file)[variable] or "")
        given, default = Settings.from_env(env_file), Settings()
    ranking = {"search_candidates": "candidates", "keyword_weight": "keyword_weight", "bm25_k1": "k1", "bm25_b": "b"}
    for name in set(Settings.__dataclass_fields__) - examples - set(ranking):
        assert getattr(given, name) == getattr(default, name), name
    for name, parameter in ranking.items():  # unset, the store's own
        assert getattr(given, name) == Ranking().to_dict()[parameter], name


def test_the_example_uses_the_passwords_it_names() -> None:
    text = re.sub(r"(?m)^#([A-Z0-9_]+)=", r"\1=", EXAMPLE.read_text())
    for name in ("POSTGRES_PASSWORD", "SYNAPSE_APP_PASSWORD"):
        text = text.replace(f"\n{name}=\n", f"\n{name}=of-{name.lower()}\n")
    values = dotenv_values(stream=StringIO(text))
    assert values["DATABASE_URL"] == "postgresql://synapse_app:of-synapse_app_password@127.0.0.1:5432/synapse"
    assert values["DATABASE_OWNER_URL"] == "postgresql://postgres:of-postgres_password@127.0.0.1:5432/synapse"
