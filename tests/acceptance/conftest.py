"""Fixtures of the tests that run the doors as processes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.program import Program


@pytest.fixture
def program(short_folder: Path) -> Iterator[Program]:
    """The program with an empty home of its own."""
    home = short_folder / f"home-{os.urandom(4).hex()}"
    yield Program(home=home, environment={})
    shutil.rmtree(home, ignore_errors=True)
