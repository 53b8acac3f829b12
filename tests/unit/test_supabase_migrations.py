"""The migrations for Supabase are those that the schema makes."""

from __future__ import annotations

from deploy.write_supabase import FOLDER, migrations


def test_they_are_written_from_the_schema() -> None:
    written = {path.name: path.read_text(encoding="utf-8") for path in (FOLDER / "migrations").iterdir()}
    assert written == migrations(), "run `python -m deploy.write_supabase`"
