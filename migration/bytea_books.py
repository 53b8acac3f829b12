"""The books of a bytea column: what was found, what a policy is missing for, and the receipt of it."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg

from migration.bytea_canary import Searches
from migration.bytea_checks import Inventory, OnUnfit, Verified
from migration.bytea_index import Index, wanted_definition
from migration.bytea_options import Options
from migration.bytea_table import STATEMENTS, ByteaTable
from migration.bytea_values import KINDS, Packing
from migration.receipt import Change, PartReceipt, Receipt
from migration.rejects import RejectsFile

if TYPE_CHECKING:
    from psycopg import Connection

_ACTIONS = {"stop": "stopped", "keep": "changed", "reject": "rejected"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """
    Whose books they are.

    :param database: Where it is, without secrets.
    :param started: When the run began, in seconds since the epoch.
    :param resumed: Whether a run before it had begun.
    """

    database: str
    server_version: int
    table: ByteaTable
    packing: Packing
    options: Options
    started: float
    resumed: bool

    def listing(self, rejects: RejectsFile | None) -> OnUnfit:
        """What writes rows that do not fit into a rejects file."""

        def write(key: list[str], kind: str, value: bytes) -> None:
            policy = self.options.policy(kind)
            if rejects is None or (kind == "zero_vector" and policy == "keep"):
                return
            rejects.write(
                part=self.table.part,
                id=key[0] if len(key) == 1 else key,
                kind=kind,
                action=_ACTIONS[policy],
                field=self.table.column,
                original=value,
            )

        return write

    def dry(self, found: Inventory, rejects: RejectsFile | None) -> Receipt:
        """The receipt of a dry run: what would be copied."""
        receipt = self._receipt("dry run", found, rejects)
        unfit = (n for kind, n in found.kinds.items() if kind != "zero_vector" or not self.options.keep_zero)
        receipt.parts[0].copied = found.with_bytes - sum(unfit)
        return receipt

    def closing(
        self, found: Verified, rejects: RejectsFile | None, *, index_valid: bool, searches: Searches
    ) -> Receipt:
        """The receipt of a migration, with its checks."""
        receipt = self._receipt("migration", found, rejects)
        part, index, least = receipt.parts[0], self.options.index, self.options.least_overlap
        part.copied = found.equal
        part.missing, part.different = found.missing, found.different
        part.source_checksum, part.target_checksum = f"{found.source_sum:032x}", f"{found.target_sum:032x}"
        if found.without_bytes:
            part.notes["vector_without_bytes"] = found.without_bytes
        if index is not None:
            built = f"{index.name_for(self.table)}, {wanted_definition(index)}"
            part.checks["index"] = {
                "passed": index_valid,
                "found": built if index_valid else f"{built}, is missing or invalid",
            }
        part.checks["canary"] = _canary_check(searches, least=least, indexed=index is not None)
        return receipt

    def stopped(self, found: Inventory, *, verb: str) -> list[str]:
        """
        Kinds of rows that nobody has chosen a policy for, a sentence each.

        :param verb: What is said of the rows.
        """
        return [
            f"{count:,} rows {verb}: {kind} ({KINDS[kind].split(';')[0]}), such as {_named(found, kind)}. "
            f"Choose with --on {kind}=keep or {kind}=reject."
            for kind, count in sorted(found.kinds.items())
            if self.options.policy(kind) == "stop"
        ]

    def _receipt(self, kind: str, found: Inventory, rejects: RejectsFile | None) -> Receipt:
        return Receipt(
            kind=kind,
            source={"kind": "bytea column", "location": f"{self.database} {self.table.part}", "version": None},
            target={"database": self.database, "server_version": _version(self.server_version)},
            options={
                "on": {name: self.options.policy(name) for name in KINDS},
                "index": wanted_definition(self.options.index) if self.options.index else None,
            },
            parts=[self._part(found)],
            rejects=rejects.summary() if rejects else {},
            run={
                "started": datetime.fromtimestamp(self.started, UTC).isoformat(timespec="seconds"),
                "resumed": self.resumed,
            },
        )

    def _part(self, found: Inventory) -> PartReceipt:
        table = self.table
        part = PartReceipt(
            name=table.part,
            target=f"{table.schema}.{table.name}.{table.target}",
            records=found.with_bytes,
            facts={
                "rows": found.rows,
                "with_bytes": found.with_bytes,
                "dimension": self.packing.dimension,
                "byte_order": "big-endian" if self.packing.big_endian else "little-endian",
                "key": [name for name, _ in table.key],
                "needed_bytes": needed_bytes(found.with_bytes, self.packing.dimension, self.options.index),
            },
        )
        for kind, count in sorted(found.kinds.items()):
            policy = self.options.policy(kind)
            part.changes[kind] = Change(policy=policy, records=count)
            part.rejected += count * (policy == "reject")
            part.changed += count * (policy == "keep" and kind != "zero_vector")
        return part


def disk_notice(connection: Connection[Any], needed: int) -> str:
    """What will be needed; PostgreSQL does not tell what it has, but this machine does where its folder is here."""
    sentence = f"About {_size(needed)} will be needed on the server's disk"
    with suppress(psycopg.Error, OSError):
        folder = (connection.execute(STATEMENTS["data_folder"]).fetchone() or {})["folder"]
        if (connection.info.host or "").startswith("/") and shutil.disk_usage(folder).free < needed:
            return f"{sentence}, which has {_size(shutil.disk_usage(folder).free)} left."
    return f"{sentence}."


def needed_bytes(rows: int, dimension: int, index: Index | None) -> int:
    """
    Room for the vectors, for the new versions of their rows, and for the index, about.

    Old versions of rows stay until they are vacuumed. An element of an index fills its share of a page of 8 KB.
    """
    vectors = rows * (4 * dimension + 8)
    if index is None:
        return 2 * vectors
    number = 2 if index.halfvec else 4
    element = number * dimension + (100 + 24 * index.m if index.method == "hnsw" else 20)
    return 2 * vectors + rows * 8192 // max(1, 8100 // element)


def _canary_check(searches: Searches, *, least: float, indexed: bool) -> dict[str, Any]:
    passed, found = searches.overlap >= least, _overlap(searches, least)
    if indexed and searches.queries and not searches.through_index:
        passed, found = False, "the searches did not go through the index"
    return {
        "passed": passed,
        "found": found,
        "queries": searches.queries,
        "overlap@10": round(searches.overlap, 4),
        "worst": round(searches.worst, 4),
    }


def _overlap(searches: Searches, least: float) -> str:
    return f"{searches.overlap:.3f} of the ten nearest{searches.setting}, {least} is wanted"


def _named(found: Inventory, kind: str) -> str:
    shown = [f"{', '.join(row['key'])} ({row['bytes']:,} bytes)" for row in found.examples[kind].examples[:3]]
    return "; ".join(shown)


def _version(number: int) -> str:
    return f"PostgreSQL {number // 10_000}.{number % 10_000}"


def _size(count: float) -> str:
    for unit in ("B", "KB", "MB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GB"
