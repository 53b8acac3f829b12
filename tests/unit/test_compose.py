"""
The compose files, one by one and on top of each other, against the compose specification and against what they are for;
and .env.example against whatever reads it.
"""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from dotenv import dotenv_values

from config import SECRETS, VARIABLES, Settings
from database.embedded import SERVER_SETTINGS
from database.ranking import Ranking
from deploy.write_postgresql_conf import SIZES, settings, text
from tests.support.compose import PROJECT, errors, loaded, merged, variables
from tests.support.pgbouncer import program

BASE = PROJECT / "docker-compose.yml"
ENVIRONMENTS = {
    "local": [BASE],
    "dev": [BASE, PROJECT / "deploy" / "compose.dev.yml"],
    "test": [BASE, PROJECT / "deploy" / "compose.test.yml"],
    "production": [BASE, PROJECT / "deploy" / "compose.production.yml"],
    "staging": [BASE, PROJECT / "deploy" / "compose.production.yml", PROJECT / "deploy" / "compose.staging.yml"],
}
FILES = sorted({path for paths in ENVIRONMENTS.values() for path in paths})
EXAMPLE = PROJECT / ".env.example"
SCRIPTS = sorted((PROJECT / "deploy").rglob("*.sh"))
ONCE = ("upgrade", "tests")
"""Services that do something and end."""

HARDENED = ("production", "staging")


def services(environment: str) -> dict[str, Any]:
    found: dict[str, Any] = merged(*ENVIRONMENTS[environment])["services"]
    return found


def each(*environments: str) -> list[Any]:
    """Every service of environments, as a parameter of its own."""
    found = [(environment, *item) for environment in environments for item in services(environment).items()]
    return [pytest.param(service, id=f"{environment}-{name}") for environment, name, service in found]


@pytest.fixture
def database() -> dict[str, Any]:
    found: dict[str, Any] = services("local")["database"]
    return found


def server_settings(service: dict[str, Any]) -> dict[str, str]:
    return dict(argument.removeprefix("--").split("=", 1) for argument in service["command"][1:])


# The specification


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_file_keeps_to_the_specification(path: Path) -> None:
    assert errors(loaded(path)) == []


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_each_environment_keeps_to_the_specification(environment: str) -> None:
    model = merged(*ENVIRONMENTS[environment])
    assert errors(model) == []
    model["services"]["database"]["shared_memory"] = "1gb"
    assert "shared_memory" in errors(model)[0]


def test_files_are_merged_as_compose_does(tmp_path: Path) -> None:
    below, above = tmp_path / "below.yml", tmp_path / "above.yml"
    below.write_text(
        "services: {a: {command: [x, y], ports: ['1:1'], environment: {A: '1', B: '${B:-2}'}, tmpfs: [/a],"
        " volumes: ['v:/v', 'w:/w'], profiles: [p]}}"
    )
    above.write_text(
        "services: {a: {command: [z], ports: !reset [], environment: {A: !reset null, C: '${C:-}'}, tmpfs: [/b],"
        " volumes: ['u:/w:ro'], profiles: !override [q]}}"
    )
    assert merged(below, above, environment={"C": "3"})["services"]["a"] == {
        "command": ["z"],
        "environment": {"B": "2", "C": "3"},
        "tmpfs": ["/a", "/b"],
        "volumes": ["v:/v", "u:/w:ro"],
        "profiles": ["q"],
    }


# What all have


@pytest.mark.parametrize("service", each(*ENVIRONMENTS))
def test_images_are_of_one_version(service: dict[str, Any]) -> None:
    name, _, tag = service["image"].rpartition(":")
    assert name
    assert tag not in ("", "latest")
    assert "build" in service or re.search(r"\d+\.\d+", tag), "a tag that does not move"


@pytest.mark.parametrize("service", each(*ENVIRONMENTS))
def test_what_is_mounted_is_there(service: dict[str, Any]) -> None:
    mounted = [volume.split(":")[0] for volume in service.get("volumes", ()) if volume.startswith(".")]
    for path in mounted:
        assert (PROJECT / path).exists(), path
    for path in (
        service.get("build", {}).get("dockerfile", "deploy/Dockerfile"),
        *(part for part in service.get("entrypoint", ()) if part.startswith("/app/")),
    ):
        assert (PROJECT / path.removeprefix("/app/")).is_file(), path


@pytest.mark.parametrize("service", each(*ENVIRONMENTS))
def test_ports_are_on_this_machine_alone(service: dict[str, Any]) -> None:
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_all_restart_and_tell_of_their_health(environment: str) -> None:
    for name, service in services(environment).items():
        assert ("healthcheck" in service) == (name not in ONCE), name
        assert service["restart"] == (
            "no" if name in ONCE or (environment == "test" and name == "database") else "unless-stopped"
        )


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_start_has_an_order(environment: str) -> None:
    """init.sql, then the schema's versions and the examination, then what uses the schema; and no circle."""
    found = services(environment)
    healthy, done = {"condition": "service_healthy"}, {"condition": "service_completed_successfully"}
    assert "depends_on" not in found["database"]
    assert found["upgrade"]["depends_on"] == {"database": healthy}
    for name in ("app", "indexer", "backup"):
        assert found[name]["depends_on"]["upgrade"] == done, name
        assert set(found[name].get("profiles", ["app"])) <= {"app", "index", "backup"}
    commands = (PROJECT / "deploy" / "upgrade.sh").read_text()
    assert commands.index("database upgrade") < commands.index("doctor")


def test_the_application_gets_every_setting_and_not_the_owner() -> None:
    """But for what compose itself decides: where the database is, where it listens, secrets."""
    given = loaded(BASE)["x-settings"]
    assert set(given) == set(VARIABLES.values()) - set(SECRETS) - {"SYNAPSE_HOME", "SERVE_HOST", "SERVE_PORT"}
    for environment in ("local", *HARDENED):
        for name in ("app", "indexer", "pgbouncer", "grafana", "prometheus"):
            service = services(environment)[name]
            assert not [key for key in service.get("environment", ()) if "OWNER" in key or key.startswith("POSTGRES_")]
            assert not {"postgres_password", "database_owner_url"} & set(service.get("secrets", ())), name


# The database


def test_the_volume_lies_where_the_image_keeps_its_data(database: dict[str, Any]) -> None:
    assert re.fullmatch(r"pgvector/pgvector:0\.8\.\d+-pg18", database["image"])
    assert "database:/var/lib/postgresql" in database["volumes"]


def test_shared_memory_holds_an_index_build(database: dict[str, Any]) -> None:
    given = server_settings(database)
    assert given == {name: value for name, value in SERVER_SETTINGS.items() if name in given}
    assert (database["shm_size"], given["maintenance_work_mem"]) == ("1gb", "512MB")


def test_environments_keep_the_settings_of_the_server(database: dict[str, Any]) -> None:
    for environment in ("dev", "test"):
        assert server_settings(services(environment)["database"]).items() >= server_settings(database).items()


def test_what_tests_write_is_gone_afterwards() -> None:
    service = services("test")["database"]
    assert "/var/lib/postgresql" in service["tmpfs"]
    assert not [volume for volume in service["volumes"] if not volume.startswith("./")]
    assert server_settings(service)["fsync"] == "off"
    assert [server_settings(services(other)["database"]).get("fsync") for other in ENVIRONMENTS if other != "test"] == [
        None
    ] * 4


# Production


@pytest.mark.parametrize("service", each("production"))
def test_nothing_is_published(service: dict[str, Any]) -> None:
    assert "ports" not in service


def test_staging_publishes_no_database() -> None:
    assert {name for name, service in services("staging").items() if "ports" in service} == {"app", "grafana"}


def test_the_database_is_on_a_network_that_leads_nowhere() -> None:
    model = merged(*ENVIRONMENTS["production"])
    assert model["networks"]["database"] == {"internal": True}
    for name in ("database", "upgrade", "backup", "pgbouncer"):
        assert model["services"][name]["networks"] == ["database"], name


@pytest.mark.parametrize("service", each(*HARDENED))
def test_containers_have_limits_and_no_privileges(service: dict[str, Any]) -> None:
    limits = service["deploy"]["resources"]["limits"]
    assert set(limits) == {"cpus", "memory", "pids"}
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert set(service["logging"]["options"]) == {"max-size", "max-file"}
    assert "/tmp" in service["tmpfs"]


@pytest.mark.parametrize("environment", HARDENED)
def test_secrets_come_from_files_alone(environment: str) -> None:
    """Also with a .env that has passwords in it: nothing of it reaches a container."""
    secrets = {
        name: f"s3cret-{name.lower()}" for name in ("POSTGRES_PASSWORD", "SYNAPSE_APP_PASSWORD", "GRAFANA_PASSWORD")
    }
    model = merged(*ENVIRONMENTS[environment], environment=secrets | dict.fromkeys(SECRETS, "s3cret"))
    assert "s3cret" not in repr(model)
    for name, service in model["services"].items():
        for variable, value in service.get("environment", {}).items():
            assert variable not in SECRETS, f"{name} has {variable} in its environment"
            assert "PASSWORD" not in variable or variable.endswith("_FILE"), f"{name}: {variable}"
            if variable.endswith("_FILE") and value:
                assert value.removeprefix("/run/secrets/") in service["secrets"], f"{name}: {variable}"
        assert set(service.get("secrets", ())) <= set(model["secrets"])
    assert all(set(secret) == {"file"} for secret in model["secrets"].values())


def test_secrets_are_made_once_and_for_the_owner_of_the_folder(tmp_path: Path) -> None:
    command = ["sh", str(PROJECT / "deploy" / "make_secrets.sh"), str(tmp_path / "secrets")]
    made = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    files = {path.name: path for path in (tmp_path / "secrets").iterdir()}
    model = merged(*ENVIRONMENTS["production"])
    assert set(files) == set(model["secrets"]) - {"metrics_key"}  # a key of the service, which does not run yet
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in files.values()} == {0o444}
    password = files["synapse_app_password"].read_text().strip()
    assert re.fullmatch(r"[0-9a-f]{48}", password)
    assert files["database_url"].read_text() == f"postgresql://synapse_app:{password}@database:5432/synapse\n"
    assert password not in made

    before = {name: path.read_text() for name, path in files.items()}
    files["grafana_password"].unlink()
    again = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert [line for line in again.splitlines() if line.endswith("is new.")] == [f"{files['grafana_password']} is new."]
    assert files["grafana_password"].read_text() != before.pop("grafana_password")
    assert {name: files[name].read_text() for name in before} == before


@pytest.mark.parametrize("name", SIZES)
def test_postgresql_is_as_large_as_its_container(name: str) -> None:
    """Nothing that a machine of the size cannot hold: the arithmetic's sum, not its parts."""
    size, path = SIZES[name], PROJECT / "deploy" / "postgresql" / f"{name}.conf"
    assert path.read_text() == text(name, size), "run `python -m deploy.write_postgresql_conf`"
    megabytes = {
        key: int(value.removesuffix("MB")) for key, (value, _) in settings(size).items() if value.endswith("MB")
    }
    busy = megabytes["shared_buffers"] + megabytes["maintenance_work_mem"] + 3 * megabytes["autovacuum_work_mem"]
    assert busy + 20 * megabytes["work_mem"] < size.memory * 2 / 3
    assert size.shared_memory > megabytes["maintenance_work_mem"]
    line = path.read_text().splitlines()[1].removeprefix("# ")
    environment = dict(pair.split("=") for pair in line.split())
    service = merged(*ENVIRONMENTS["production"], environment=environment)["services"]["database"]
    assert f"./deploy/postgresql/{name}.conf:/etc/postgresql/postgresql.conf:ro" in service["volumes"]
    assert service["shm_size"] == f"{size.shared_memory}m"
    assert service["deploy"]["resources"]["limits"]["memory"] == f"{size.memory // 1024}g"
    if name == "small":
        assert service == services("production")["database"]


# .env.example


def test_the_example_describes_every_variable() -> None:
    described = set(re.findall(r"(?m)^#([A-Z0-9_]+)=", EXAMPLE.read_text()))
    wanted = set(VARIABLES.values()).union(*(variables(path.read_text()) for path in FILES))
    assert described == wanted


def test_the_example_shows_the_defaults_of_compose() -> None:
    shown = dict(re.findall(r"(?m)^#([A-Z0-9_]+)=(.*)$", EXAMPLE.read_text()))
    for path in FILES:
        for name, default in re.findall(r"\$\{([A-Z0-9_]+):-([^}]*)\}", path.read_text()):
            assert shown[name] == default or name == "SYNAPSE_IMAGE" or name.endswith("_FILE"), name


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
        "database_read_url",
        "table_name",
        "embedding_base_url",
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
    example = re.sub(r"(?m)^#([A-Z0-9_]+)=", r"\1=", EXAMPLE.read_text())
    for name in ("POSTGRES_PASSWORD", "SYNAPSE_APP_PASSWORD"):
        example = example.replace(f"\n{name}=\n", f"\n{name}=of-{name.lower()}\n")
    values = dotenv_values(stream=StringIO(example))
    assert values["DATABASE_URL"] == "postgresql://synapse_app:of-synapse_app_password@127.0.0.1:5432/synapse"
    assert values["DATABASE_OWNER_URL"] == "postgresql://postgres:of-postgres_password@127.0.0.1:5432/synapse"


# Scripts


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with what make_env.sh reads."""
    (tmp_path / "deploy").mkdir()
    shutil.copy(PROJECT / "deploy" / "make_env.sh", tmp_path / "deploy")
    shutil.copy(EXAMPLE, tmp_path)
    return tmp_path


def test_an_env_file_is_made_once(project: Path) -> None:
    command, environment = ["sh", "deploy/make_env.sh"], {"PATH": "/usr/bin:/bin", "POSTGRES_PORT": "5433"}
    subprocess.run(command, cwd=project, env=environment, check=True, capture_output=True)
    made = project / ".env"
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    values = dotenv_values(made)
    passwords = values["POSTGRES_PASSWORD"], values["SYNAPSE_APP_PASSWORD"]
    assert all(re.fullmatch(r"[0-9a-f]{48}", password or "") for password in passwords)
    assert len(set(passwords)) == 2
    assert values["DATABASE_URL"] == f"postgresql://synapse_app:{passwords[1]}@127.0.0.1:5433/synapse"
    assert values["DATABASE_OWNER_URL"] == f"postgresql://postgres:{passwords[0]}@127.0.0.1:5433/synapse"
    assert set(values) == {
        "POSTGRES_PASSWORD",
        "SYNAPSE_APP_PASSWORD",
        "POSTGRES_PORT",
        "DATABASE_URL",
        "DATABASE_OWNER_URL",
    }
    again = subprocess.run(command, cwd=project, env=environment, check=False, capture_output=True, text=True)
    assert again.returncode == 1
    assert "it is left as it is" in again.stderr
    assert dotenv_values(made) == values


@pytest.mark.parametrize(
    "given", [{"POSTGRES_PASSWORD": "x"}, {"POSTGRES_PASSWORD": "x", "SYNAPSE_APP_PASSWORD_FILE": "/none"}]
)
def test_the_database_does_not_start_without_its_passwords(given: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "docker-entrypoint.sh").write_text("#!/bin/sh\necho started with $*\n")
    (tmp_path / "docker-entrypoint.sh").chmod(0o755)
    command = [str(PROJECT / "deploy" / "postgresql" / "start.sh"), "postgres", "--jit=off"]
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(command, env=environment | given, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("SYNAPSE_APP_PASSWORD")
    (tmp_path / "secret").write_text("y\n")
    for complete in ({"SYNAPSE_APP_PASSWORD": "y"}, {"SYNAPSE_APP_PASSWORD_FILE": str(tmp_path / "secret")}):
        whole = environment | {"POSTGRES_PASSWORD": "x"} | complete
        done = subprocess.run(command, env=whole, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, "started with postgres --jit=off\n")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_sound(path: Path) -> None:
    assert path.stat().st_mode & stat.S_IXUSR, "the image sources scripts that are not executable"
    assert path.read_text().startswith("#!/bin/sh\n")
    subprocess.run(["sh", "-n", path], check=True)


@pytest.mark.system
def test_shellcheck_finds_nothing() -> None:
    done = subprocess.run([program("shellcheck"), *SCRIPTS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
