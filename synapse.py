"""The door: `python synapse.py COMMAND`. Which command, with which settings; the work is done in `commands/`."""

import signal
import sys

import typer

from commands import (
    ask,
    chat,
    conversations,
    database,
    doctor,
    documents,
    evaluate,
    fields,
    index,
    keys,
    migrate,
    models,
    recall,
    search,
    serve,
    status,
    tenants,
    usage,
    users,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Answers from your own documents, on PostgreSQL + pgvector.",
)
app.command()(index.index)
app.command()(ask.ask)
app.command()(search.search)
app.command()(chat.chat)
app.command()(serve.serve)
app.command()(evaluate.evaluate)
app.command()(recall.recall)
app.command()(status.status)
app.command()(usage.usage)
app.command()(doctor.doctor)
app.add_typer(documents.app, name="documents")
app.add_typer(models.app, name="models")
app.add_typer(fields.app, name="fields")
app.add_typer(tenants.app, name="tenants")
app.add_typer(users.app, name="users")
app.add_typer(keys.app, name="keys")
app.add_typer(conversations.app, name="conversations")
app.add_typer(migrate.app, name="migrate")
app.add_typer(database.app, name="database")

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the last one stops the server
    app(prog_name="synapse.py")
