"""The page that `status` draws: rich's tables without frames, so that it reads the same in a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from commands.output import harmless

if TYPE_CHECKING:
    from database.connection import Row
    from database.errors import DatabaseUnavailableError
    from database.observation import Observation

ROWS = 6
"""Rows of a table on the page; --json has all."""

RARELY = 0.9
"""Share of reads that memory answers below which it is marked."""


def page(seen: Observation, *, backup: dict[str, Any] | None = None) -> RenderableType:
    """
    An observation, for 80 columns or more; what there is none of is left out.

    :param backup: The last one that this machine made: `at`, `path`, `bytes`.
    """
    parts: list[RenderableType] = [_head(seen), _facts(seen, backup)]
    for heading, rows, table in (
        ("Questions per day (UTC)", seen.questions, _questions),
        ("Slowest questions", seen.slowest, _slowest),
        ("Statements, by pg_stat_statements", seen.statements, _statements),
        ("Tables", seen.tables, _tables),
        ("Indexes", seen.indexes, _indexes),
        ("Kept out", seen.quarantined, _quarantined),
    ):
        if rows:
            parts += [Text(), Text(heading, style="bold"), table(seen)]
    return Group(*parts)


def unavailable(error: DatabaseUnavailableError) -> Text:
    """What stands in its place while there is no connection."""
    return Text(f"{datetime.now(UTC):%H:%M:%S} UTC  {error.message}", style="red")


def _head(seen: Observation) -> Text:
    server = seen.server
    schema = server["schema_version"]
    up = duration((seen.at - server["started_at"]).total_seconds())
    text = Text(f"{seen.database}, tenant {seen.tenant}\n", style="bold")
    line = f"PostgreSQL {server['server_version'].split()[0]}, pgvector {server['pgvector_version']}, schema {schema}"
    text.append(f"{line}, {size(server['bytes'])}, up {up}", style="not bold")
    return text


def _facts(seen: Observation, backup: dict[str, Any] | None) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="cyan")
    table.add_column(overflow="fold")
    for name, value in _lines(seen):
        table.add_row(name, value)
    if backup is not None:
        made = f"{_ago(seen.at, datetime.fromisoformat(backup['at']))}, {size(backup['bytes'])}  "
        table.add_row("backup", Text(made).append(harmless(backup["path"]), style="dim"))
    return table


def _lines(seen: Observation) -> Iterator[tuple[str, Text]]:
    for one in seen.sources:
        text = Text(f"{one['sources']:,} in {one['chunks']:,} chunks", style="" if one["active"] else "dim")
        if one["quarantined"]:
            text.append(f", {one['quarantined']:,} kept out", style="yellow")
        if one["last_indexed_at"]:
            text.append(f"; the last {_ago(seen.at, one['last_indexed_at'])}")
        yield "sources", text.append(f"  {one['model']}", style="dim")
    growth = seen.growth
    sums = {name: sum(day[name] or 0 for day in growth) for name in ("sources", "chunks", "bytes", "conversations")}
    yield (
        f"in {seen.days} days",
        Text(
            f"+{sums['sources']:,} sources ({size(sums['bytes'])}), +{sums['chunks']:,} chunks, "
            f"+{sums['conversations']:,} conversations"
        ),
    )
    yield "connections", _connections(seen.connections)
    for build in seen.builds:
        yield "building", _build(build)
    for replica in seen.replicas:
        yield "standby", _replica(replica)
    for one in seen.certificates:
        found = f"{one['recall']:.2%} of the nearest {one['top_k']}, at least {one['lower']:.2%}"
        yield (
            "recall",
            Text(f"{found}; {_ago(seen.at, one['measured_at'])}  ").append(harmless(one["table"]), style="dim"),
        )
    if not seen.certificates:
        yield "recall", Text("not measured: run `python synapse.py recall`", style="dim")


def _connections(row: Row) -> Text:
    text = Text(f"{row['open']:,} of {row['most']:,}: {row['active']:,} active, {row['idle']:,} idle")
    if row["idle_in_transaction"]:
        text.append(f", {row['idle_in_transaction']:,} idle in a transaction", style="yellow")
    if row["hidden"]:
        text.append(f", {row['hidden']:,} of other roles")
    longest = row["longest_transaction_seconds"]
    if longest and longest >= 1:
        text.append(f"; longest transaction {duration(longest)}", style="yellow" if longest > 60 else "")
    return text


def _build(row: Row) -> Text:
    if row["index"] is None:
        return Text("an index of another role's")
    text = Text(f"{harmless(row['index'])}: {row['phase'].removeprefix('building index: ')}")
    if row["total"]:
        share = row["done"] / row["total"]
        text.append(f", {share:.0%}")
        if 0.01 < share < 1 and row["seconds"]:
            text.append(f", about {duration(row['seconds'] * (1 - share) / share)} left")
    return text


def _replica(row: Row) -> Text:
    text = Text(f"{harmless(row['name'] or 'unnamed')}: {row['state']}")
    if row["bytes"] is not None:
        text.append(f", {size(row['bytes'])} behind")
    if row["seconds"]:
        text.append(f", {duration(row['seconds'])}")
    if row["trouble"]:
        text.append(f"; not read from: {harmless(row['trouble'])}", style="yellow")
    return text


def _questions(seen: Observation) -> Table:
    table = _table("day", ("questions", "unanswered", "tokens in", "out", "p50", "p95", "slowest"))
    for day in seen.questions[-ROWS:]:
        counts = (f"{day[name]:,}" for name in ("questions", "empty_answers", "tokens_in", "tokens_out"))
        times = (milliseconds(day[name]) for name in ("p50_ms", "p95_ms", "max_ms"))
        table.add_row(day["day"].isoformat(), *counts, *times)
    return table


def _slowest(seen: Observation) -> Table:
    table = _table("when (UTC)", ("took",), last=("asked for", "language model"))
    for one in seen.slowest:
        when = f"{one['at']:%Y-%m-%d %H:%M}"
        table.add_row(when, milliseconds(one["milliseconds"]), harmless(one["kind"]), harmless(one["model"] or "none"))
    return table


def _statements(seen: Observation) -> Table:
    table = _table("calls", ("mean", "slowest", "all"), last=("statement",))
    for one in seen.statements:
        times = (milliseconds(one[name]) for name in ("mean_ms", "max_ms", "total_ms"))
        table.add_row(f"{one['calls']:,}", *times, harmless(" ".join(one["statement"].split()))[:200])
    return table


def _tables(seen: Observation) -> Table:
    table = _table("", ("~rows", "dead", "table", "indexes", "hits", "index hits"))
    for one in seen.tables[:ROWS]:
        rows = (f"{one[name]:,}" for name in ("estimated_rows", "dead_rows"))
        sizes = (size(one[name]) for name in ("heap_bytes", "index_bytes"))
        table.add_row(
            harmless(one["name"]), *rows, *sizes, _share(one["heap_hit_ratio"]), _share(one["index_hit_ratio"])
        )
    _say_how_many_more(table, seen.tables)
    return table


def _indexes(seen: Observation) -> Table:
    table = _table("", ("kind", "used", "last", "size"))
    for one in seen.indexes[:ROWS]:
        last = _ago(seen.at, one["last_used"]) if one["last_used"] else "never"
        name = Text(harmless(one["name"]))
        if not one["valid"]:
            name.append(" (invalid)", style="red")
        table.add_row(name, one["method"], f"{one['scans']:,}", last, size(one["bytes"]))
    _say_how_many_more(table, seen.indexes)
    return table


def _quarantined(seen: Observation) -> Table:
    table = _table("since (UTC)", (), last=("source", "reason"))
    for one in seen.quarantined:
        table.add_row(f"{one['since']:%Y-%m-%d %H:%M}", *(Text(harmless(one[name])) for name in ("source", "reason")))
    return table


def _table(first: str, numbers: Sequence[str], *, last: Sequence[str] = ()) -> Table:
    """A table whose first column shrinks where it is too wide, and whose numbers never do."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(first, overflow="ellipsis")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    for name in last:
        table.add_column(name, overflow="ellipsis")
    return table


def _say_how_many_more(table: Table, rows: Sequence[Any]) -> None:
    if len(rows) > ROWS:
        table.add_row(f"… and {len(rows) - ROWS:,} more", style="dim")


def _share(ratio: float | None) -> Text:
    if ratio is None:
        return Text("-", style="dim")
    return Text(f"{ratio:.1%}", style="yellow" if ratio < RARELY else "")


def _ago(now: datetime, then: datetime) -> str:
    seconds = (now - then).total_seconds()
    return f"{duration(seconds)} ago" if seconds >= 1 else "just now"


def duration(seconds: float) -> str:
    """In the largest unit of which there are two, or seconds: `90 s`, `15 min`, `26 h`, `3 days`."""
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def milliseconds(value: float | None) -> str:
    """A time that was measured in milliseconds: `0.42 ms`, `12 ms`, `1.2 s`."""
    if value is None:
        return "-"
    if value >= 1000:
        return f"{value / 1000:.1f} s"
    return f"{value:.0f} ms" if value >= 10 else f"{value:.2g} ms"


def size(count: float) -> str:
    """Bytes: `512 B`, `24 KB`, `1.4 GB`."""
    for unit in ("B", "KB", "MB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GB"
