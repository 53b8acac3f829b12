"""The door: `python migrate_from_chroma.py PATH`. Moves a Chroma database here, with a receipt; see docs/migrating.md."""

import signal
import sys

import typer

from commands.migrate_chroma import chroma

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
app.command(no_args_is_help=True)(chroma)

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the last one stops the server
    app(prog_name="migrate_from_chroma.py")
