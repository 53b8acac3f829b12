"""The house: who may import whom, who reads the environment, what starts quickly. The picture is in docs/architecture.md."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
ROOMS = ("commands", "serving", "evaluation", "pipelines", "migration", "components", "database")
BELOW_COMMANDS = ROOMS[1:]
HEAVY = ("haystack", "torch", "psycopg", "sqlalchemy", "numpy", "transformers")

INHERITED = {
    "database/copies/programs.py": "hands PostgreSQL's programs their environment",
    "database/embedded.py": "hands PostgreSQL's programs their environment",
    "serving/hayhooks_host.py": "sets Hayhooks' own variables, so that a user's open nothing up",
    "serving/page/library.py": "sets Chainlit's own variables, which it reads when it is imported",
}
"""What reads the environment and why; settings come from config.py alone."""


def modules(*rooms: str) -> list[Path]:
    return [path for room in rooms for path in sorted((PROJECT / room).rglob("*.py"))]


def run_time_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING`."""
    if isinstance(tree, ast.If) and "TYPE_CHECKING" in ast.unparse(tree.test):
        return
    yield tree
    for child in ast.iter_child_nodes(tree):
        yield from run_time_nodes(child)


def imported(path: Path) -> set[str]:
    names = set()
    for node in run_time_nodes(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


def relative(path: Path) -> str:
    return str(path.relative_to(PROJECT))


@pytest.mark.parametrize("room", [*ROOMS, "examples", "benchmarks", "deploy"])
def test_rooms_open_without_importing_anything(room: str) -> None:
    assert (PROJECT / room / "__init__.py").read_text() == ""


def test_every_room_knows_only_the_rooms_below_it() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", modules(*BELOW_COMMANDS), ids=relative)
def test_nothing_below_the_commands_reads_the_environment_or_the_settings(path: Path) -> None:
    assert imported(path).isdisjoint({"config", "dotenv"})
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        text = ast.unparse(node) if isinstance(node, ast.Attribute | ast.Name) else ""
        if text in ("os.environ", "environ", "os.getenv", "getenv"):
            assert relative(path) in INHERITED, f"{relative(path)}:{node.lineno} reads the environment"


@pytest.mark.parametrize("path", modules(*ROOMS), ids=relative)
def test_no_module_is_a_program(path: Path) -> None:
    assert "__main__" not in path.read_text(encoding="utf-8")


def loaded_by(code: str) -> set[str]:
    """Which heavy packages a program has imported at its end."""
    shown = f"import sys\n{code}\nprint([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", shown], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[str] = ast.literal_eval(done.stdout.splitlines()[-1])
    return set(found)


def test_help_imports_nothing_heavy() -> None:
    help_ = (
        "import synapse\nfrom typer.testing import CliRunner\n"
        "assert 'index' in CliRunner().invoke(synapse.app, ['--help']).stdout"
    )
    assert loaded_by(help_) == set()


def test_help_of_the_migration_imports_nothing_heavy() -> None:
    help_ = (
        "import migrate_from_chroma\nfrom typer.testing import CliRunner\n"
        "assert 'receipt' in CliRunner().invoke(migrate_from_chroma.app, ['--help']).stdout"
    )
    assert loaded_by(help_) == set()


def test_planning_a_sync_imports_neither_haystack_nor_torch() -> None:
    assert loaded_by("import pipelines.sync, pipelines.fingerprint, database.ledger").isdisjoint({"haystack", "torch"})
