"""The doctor: everything that it can find is planted, found, and nothing else; what it says mends it."""

# ruff: noqa: S608 - the statements are of the names that stand here

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

import synapse
from config import VARIABLES
from database import schema
from database.connection import Database
from database.embedded import EmbeddedServer
from database.health.examination import KINDS, SUBJECTS, examine
from database.health.patient import Limits
from deploy.write_doctor_page import PAGE, page
from tests.integration.test_doctor_pooler import POOLED
from tests.integration.test_doctor_servers import ELSEWHERE
from tests.support.clinic import TABLE, Clinic, Plant, codes, cured, fill, other_database
from tests.support.embedding_server import EmbeddingServer, letters
from tests.support.plants import PLANTS, secrets_in


@pytest.fixture(scope="module")
def clinic(short_folder: Path) -> Iterator[Clinic]:
    """An embedded server as users have it, with documents."""
    home = short_folder / "clinic"
    server = EmbeddedServer(home)
    server.start()
    made = Clinic(server.conninfo(), server.conninfo(owner=True), folder=home, server=server)
    assert made.found() == [], "a database that was made a moment ago is healthy"
    fill(made)
    yield made
    server.stop()
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def invoke(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], int]:
    """Runs a command on the clinic's database, in this process, which has loaded everything already."""
    for name in VARIABLES.values():
        monkeypatch.setenv(name, "")
    for name, value in clinic.environment().items():
        monkeypatch.setenv(name, value)
    return lambda arguments: CliRunner().invoke(synapse.app, arguments).exit_code


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.id)
def test_what_is_planted_is_found_and_mended(clinic: Clinic, plant: Plant, invoke: Callable[[list[str]], int]) -> None:
    with plant.around(clinic):
        clinic.run(*plant.sql)
        changed = plant.changed(clinic)
        found = clinic.found(**changed)
        assert codes(found) == {plant.code, *plant.along}, [finding.what for finding in found]
        if not plant.hands:
            cured(clinic, [finding for finding in found if finding.code == plant.code], invoke=invoke)
            assert codes(clinic.found(**changed)) == set()
    clinic.run(*plant.undo)
    assert codes(clinic.found()) == set()


def test_every_finding_is_planted() -> None:
    planted = {plant.code for plant in PLANTS} | set(ELSEWHERE) | set(POOLED) | set(IN_DATABASES_OF_THEIR_OWN)
    assert planted == set(KINDS)


IN_DATABASES_OF_THEIR_OWN = (
    "extension_missing",
    "schema_missing",
    "schema_older",
    "schema_incomplete",
    "pgvector_hnsw_faults",
)


def test_a_database_with_nothing_in_it(clinic: Clinic, invoke: Callable[[list[str]], int]) -> None:
    with other_database(clinic) as empty:
        found = empty.found()
        assert codes(found) == {"extension_missing", "schema_missing"}
        cured(empty, [found[0]], invoke=invoke)
        schema.upgrade(empty.owner)  # as `database upgrade`, which the other finding names
        assert codes(empty.found()) == set()


def test_a_schema_that_is_older_or_half_there(clinic: Clinic) -> None:
    with other_database(clinic, template=True) as copy:
        copy.run("UPDATE alembic_version SET version_num = '0005'")
        assert codes(copy.found()) == {"schema_older"}
        schema.upgrade(copy.owner)
        assert codes(copy.found()) == set()

        copy.run("DROP TABLE feedback")
        (found,) = copy.found()
        assert found.code == "schema_incomplete"
        assert "feedback" in found.what
        copy.run("DELETE FROM alembic_version")
        assert codes(copy.found()) == {"schema_incomplete"}
        schema.upgrade(copy.owner)
        assert codes(copy.found()) == set()


def test_what_is_missing_is_noticed_for_every_part_of_the_schema(clinic: Clinic) -> None:
    """The list of parts is that of the database, so that a new one cannot be forgotten."""
    listed = (Path(schema.__file__).parent / "health" / "schema_state.sql").read_text()
    names = clinic.value(
        "SELECT array_agg(name) FROM (SELECT relname::text AS name FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        f" AND relkind = 'r' AND relname NOT LIKE '{TABLE}%' AND relname <> 'alembic_version') AS tables"
    )
    assert [name for name in names if f"'{name}'" not in listed] == []


def test_an_old_pgvector_on_the_server(clinic: Clinic, short_folder: Path) -> None:
    """The server's package is what another folder of extensions says, before the one that it really has."""
    folder = short_folder / "old-extensions" / "extension"
    folder.mkdir(parents=True)
    folder.parent.chmod(0o755)
    (folder / "vector.control").write_text(
        "default_version = '0.8.1'\nmodule_pathname = '$libdir/vector'\nrelocatable = true\n"
    )
    with other_database(clinic, template=True) as copy:
        name = copy.value("SELECT current_database()")
        copy.run(
            f"ALTER DATABASE {name} SET extension_control_path = '{folder.parent}:$system'",
            "UPDATE pg_extension SET extversion = '0.8.1' WHERE extname = 'vector'",
        )
        (found,) = copy.found()
        assert found.code == "pgvector_hnsw_faults"
        assert "CVE-2026-3172" in found.what
        assert "may corrupt" in found.what
        copy.run(f"ALTER DATABASE {name} RESET extension_control_path")
        (found,) = copy.found()
        assert found.code == "extension_behind", "as soon as the server has the newer package"
        cured(copy, [found], invoke=lambda _: 1)
        assert codes(copy.found()) == set()


def test_a_look_that_fails_ends_no_other(clinic: Clinic) -> None:
    with other_database(clinic, template=True) as copy:
        copy.run(
            "REVOKE SELECT ON recall_certificates FROM synapse_tenant",
            "REVOKE TEMPORARY ON DATABASE " + copy.value("SELECT current_database()") + " FROM PUBLIC",
        )
        patient = copy.patient()
        found = examine(patient)
        patient.close()
        unknown = {finding.subject: finding.what for finding in found if finding.severity == "unknown"}
        assert set(unknown) == {"recall", "vector type"}
        assert "permission denied" in unknown["recall"]
        assert {finding.subject for finding in found} == {module.SUBJECT for module in SUBJECTS}


def test_a_look_that_takes_long_is_given_up(clinic: Clinic) -> None:
    with other_database(clinic, template=True) as copy:
        copy.run("ALTER VIEW synapse_tables RENAME TO other", f"ALTER TABLE {TABLE}_keywords RENAME TO renamed")
        copy.run(
            f"CREATE VIEW {TABLE}_keywords AS SELECT * FROM renamed WHERE pg_sleep(0.05) IS NOT NULL",
            f"GRANT SELECT ON {TABLE}_keywords TO synapse_tenant_default",
        )
        patient = copy.patient(limits=Limits(check_ms=200))
        found = examine(patient)
        patient.close()
        assert "keywords" in {finding.subject for finding in found}
        assert "longer than 200 ms" in " ".join(finding.what for finding in found if finding.severity == "unknown")


def test_without_the_owner_nothing_is_made_up(clinic: Clinic) -> None:
    assert codes(clinic.found(owner=None)) == set()


def test_a_file_of_settings_without_secrets_may_be_read(clinic: Clinic) -> None:
    settings = clinic.folder / ".env"
    settings.write_text("# OPENAI_API_KEY=\nOPENAI_API_KEY=\nDATABASE_URL=postgresql://host/name\n")
    settings.chmod(0o644)
    assert codes(clinic.found(**secrets_in(clinic))) == set()
    settings.unlink()


def test_the_owner_as_application(clinic: Clinic) -> None:
    found = clinic.found(application=Database(clinic.owner), owner=None)
    assert codes(found) == {"role_unbound"}
    assert "superuser" in found[0].what


def test_all_tenants_are_looked_at(clinic: Clinic, invoke: Callable[[list[str]], int]) -> None:
    assert invoke(["tenants", "create", "acme"]) == 0
    try:
        both = ("acme", "default")
        assert codes(clinic.found(tenants=both)) == set()
        clinic.run(f"DROP INDEX tenant_acme.{TABLE}_hnsw_index")
        assert codes(clinic.found()) == set()
        (found,) = clinic.found(tenants=both)
        assert found.code == "index_missing"
        assert f"tenant_acme.{TABLE}" in found.what
        cured(clinic, [found], invoke=invoke)
        assert codes(clinic.found(tenants=both)) == set()
    finally:
        assert invoke(["tenants", "drop", "acme", "--yes"]) == 0


def test_the_command(clinic: Clinic, invoke: Callable[[list[str]], int]) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(synapse.app, ["doctor", *arguments])
        return done.exit_code, done.stdout

    code, printed = run()
    assert code == 0, printed
    assert printed.splitlines()[-1].startswith("Healthy")
    assert len(printed.splitlines()) == len(SUBJECTS) + 1

    clinic.run("UPDATE sources SET reason = 'no text in it'", f"DELETE FROM {TABLE}_keywords WHERE document_id = 'd3'")
    code, printed = run()
    assert code == 5
    assert "keywords_out_of_step, warning" in printed
    assert f'→ SELECT synapse_rebuild_keywords(\'"public"."{TABLE}"\')' in printed
    assert printed.splitlines()[-1].startswith("1 warning, 1 advice. --fix mends 1.")

    code, printed = run("--fix", "--json")
    assert code == 0
    result = json.loads(printed)
    assert result["verdict"] == "advice"
    assert [finding["code"] for finding in result["findings"]] == ["sources_quarantined"]
    assert [(one["code"], one["problem"]) for one in result["mended"]] == [("keywords_out_of_step", None)]
    assert run("--strict")[0] == 5
    clinic.run("UPDATE sources SET reason = NULL")
    assert run("--strict", "--all-tenants")[0] == 0


def test_a_server_that_embeds(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch, invoke: Callable[[list[str]], int]
) -> None:
    def run() -> list[str]:
        done = CliRunner().invoke(synapse.app, ["doctor", "--json"])
        return [finding["code"] for finding in json.loads(done.stdout)["findings"]]

    with EmbeddingServer(letters) as server:
        monkeypatch.setenv("EMBEDDING_BASE_URL", server.url)
        assert run() == []
    assert run() == ["model_files_missing"]
    with EmbeddingServer(partial(letters, dimension=8)) as server:
        monkeypatch.setenv("EMBEDDING_BASE_URL", server.url)
        assert run() == ["model_files_differ"]


def test_the_command_without_a_database(monkeypatch: pytest.MonkeyPatch, invoke: Callable[[list[str]], int]) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:secret@127.0.0.1:9/d")
    done = CliRunner().invoke(synapse.app, ["doctor", "--json"])
    assert done.exit_code == 1
    assert json.loads(done.stdout)["error"]["code"] == "database_unavailable"
    assert "secret" not in done.output


def test_the_page_has_every_finding() -> None:
    assert page(PAGE.read_text(encoding="utf-8")) == PAGE.read_text(encoding="utf-8"), (
        "run python -m deploy.write_doctor_page"
    )
