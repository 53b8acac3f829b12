"""`status`: a page in the terminal about the database, its use and what it costs."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from commands.output import JsonFlag, console, errors_reported, print_json
from database.errors import DatabaseUnavailableError, InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rich.console import RenderableType

    from database.observation import Observation


def status(
    watch: Annotated[
        float | None, typer.Option("--watch", metavar="SECONDS", min=0.1, help="Stay, and look again this often.")
    ] = None,
    days: Annotated[int, typer.Option("--days", min=1, max=366, help="How many days back, today included.")] = 7,
    json_: JsonFlag = False,
) -> None:
    """How the database is used: sources, growth, questions, tables, indexes, connections; of this tenant."""
    with errors_reported(json_):
        if watch is not None and json_:
            raise InvalidInputError(
                "--watch goes on until it is stopped and has no one result; --json does not go with it."
            )
        from commands.database import owner_database
        from config import Settings
        from database.connection import open_database
        from database.copies.backup import last_backup
        from database.observation import observe

        settings = Settings.from_env()
        database, owner = open_database(settings), owner_database(settings)

        def look() -> Observation:
            return observe(database, owner=owner, days=days)

        if json_:
            print_json({**look().to_dict(), "last_backup": last_backup(settings.home)})
        elif watch is None:
            from commands.status_page import page

            console().print(page(look(), backup=last_backup(settings.home)))
        else:
            try:
                _watch(look, home=settings.home, seconds=watch)
            except KeyboardInterrupt:  # how it ends
                raise typer.Exit from None


def _watch(look: Callable[[], Observation], *, home: Path, seconds: float) -> None:
    """Draw the page again and again: over itself in a terminal, one below the other elsewhere."""
    from rich.live import Live

    from commands.status_page import page, unavailable
    from database.copies.backup import last_backup

    def drawn() -> RenderableType:
        try:
            return page(look(), backup=last_backup(home))
        except DatabaseUnavailableError as exc:  # it may come back
            return unavailable(exc)

    screen, first = console(), page(look(), backup=last_backup(home))
    if not screen.is_terminal:
        while True:
            screen.print(first, end="\n\n")
            sys.stdout.flush()
            time.sleep(seconds)
            first = drawn()
    with Live(first, console=screen, screen=True, auto_refresh=False, vertical_overflow="ellipsis") as live:
        while True:
            time.sleep(seconds)
            live.update(drawn(), refresh=True)
