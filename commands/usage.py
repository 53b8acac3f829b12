"""`usage`: questions, tokens, empty answers and bad marks per day."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from commands.output import JsonFlag, console, errors_reported, print_json, say


def usage(
    days: Annotated[int, typer.Option("--days", min=1, max=3660, help="How many days back, today included.")] = 30,
    json_: JsonFlag = False,
) -> None:
    """Questions, tokens, empty answers and marks per day (UTC), of this tenant."""
    with errors_reported(json_):
        from config import Settings
        from database.connection import open_database
        from database.usage import usage_by_day

        settings = Settings.from_env()
        found = usage_by_day(open_database(settings), settings.tenant, days=days)
        if json_:
            print_json({"days": [asdict(day) for day in found]})
            return
        if not found:
            say("Nothing was asked yet." if days > 1 else "Nothing was asked today.")
            return
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        table = Table("day", box=SIMPLE_HEAD, pad_edge=False)
        for column in ("questions", "tokens in", "tokens out", "empty answers", "interrupted", "good", "bad"):
            table.add_column(column, justify="right")
        for day in found:
            about = "~" if day.tokens_estimated else ""
            tokens = (f"{about}{number:,}" for number in (day.tokens_in, day.tokens_out))
            others = (day.empty_answers, day.interrupted, day.good_marks, day.bad_marks)
            table.add_row(day.day.isoformat(), f"{day.questions:,}", *tokens, *(f"{number:,}" for number in others))
        console().print(table)
