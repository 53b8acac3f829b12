"""Running the doors as processes, as a user does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config import SECRETS, VARIABLES

PROJECT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Program:
    """
    `synapse.py` with a home of its own.

    :param home: Home folder of its embedded server.
    :param environment: Variables beside those of a clean shell.
    """

    home: Path
    environment: dict[str, str]

    def run(
        self, *arguments: object, stdin: str | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [sys.executable, str(PROJECT / "synapse.py"), *map(str, arguments)],
            env=self.full_environment(),
            input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def json(self, *arguments: object, exit_code: int = 0, **options: Any) -> dict[str, Any]:
        """Run a command with --json; standard output must be exactly one object."""
        done = self.run(*arguments, "--json", **options)
        assert done.returncode == exit_code, done.stdout + done.stderr
        value = json.loads(done.stdout)
        assert isinstance(value, dict)
        return value

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """Start a command and leave it running."""
        return subprocess.Popen(
            [sys.executable, str(PROJECT / "synapse.py"), *map(str, arguments)],
            env=self.full_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def full_environment(self) -> dict[str, str]:
        """A clean shell's variables, and ours; empty ones keep a developer's `.env` out."""
        unset = dict.fromkeys((*VARIABLES.values(), *(f"{secret}_FILE" for secret in SECRETS)), "")
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ}
        return {**unset, **kept, "SYNAPSE_HOME": str(self.home), "HF_HUB_OFFLINE": "1", **self.environment}
