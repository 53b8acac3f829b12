"""
Put together what `vercel deploy` uploads: the program's rooms that the API needs, its requirements, and vercel.json.

    python -m deploy.write_vercel build/vercel
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[1]
ROOMS = ("components", "database", "pipelines", "serving")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "page", "schema_versions", "*.pyc")
PYTHON = "3.12"
"""The oldest that Vercel offers."""


def write(folder: Path) -> None:
    """
    Write the deployment.

    :param folder: Where to; must not be there yet.
    """
    folder.mkdir(parents=True)
    for room in ROOMS:
        shutil.copytree(PROJECT / room, folder / room, ignore=LEFT_OUT)
    shutil.copy(PROJECT / "config.py", folder)
    vercel = PROJECT / "deploy" / "vercel"
    shutil.copytree(vercel / "api", folder / "api", ignore=LEFT_OUT)
    shutil.copy(vercel / "vercel.json", folder)
    shutil.copy(vercel / "requirements-vercel.txt", folder / "requirements.txt")
    (folder / ".python-version").write_text(f"{PYTHON}\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    write(Path(sys.argv[1]))
