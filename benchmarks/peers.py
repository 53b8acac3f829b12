"""
Other libraries on the same server, beside ours and the plain store: rows written a second, filtered recall, time of a search.

    python -m benchmarks.peers --python .venv-peers/bin/python [--rows 20000] [--json FILE]

`make bench-peers` installs them first. Every library runs with its defaults, after one another, on a server of its own; filters
are uncorrelated with the questions. Ours writes as into a table that nobody reads yet, and so does any peer that builds its
index when it is told to.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

import numpy as np
from haystack import Document
from psycopg.conninfo import conninfo_to_dict

from benchmarks.corpora import clusters, zipf_texts
from benchmarks.machine import description
from benchmarks.measuring import number, p50, say
from benchmarks.peer_driver import PEERS, TOP_K, measure
from benchmarks.stores import PLAIN_TABLE, benchmark_server, bulk_write, our_store, plain_store, settle
from config import PROJECT
from database.document_store import SynapseDocumentStore
from database.embedded import EmbeddedServer

SHARES = (1.0, 0.9, 0.2, 0.05, 0.01)


class OurStore:
    """This project's store, in the form that the driver asks for."""

    def __init__(self, server: EmbeddedServer, store: SynapseDocumentStore) -> None:
        self.server, self.store = server, store

    def write(self, rows: Any, texts: list[str], places: list[int]) -> None:
        """Load the empty table; its indexes are built afterwards."""
        bulk_write(self.store, _documents(rows, texts, places))

    def build(self) -> None:
        """Done already."""
        settle(self.server, self.store.table_name)

    def ask(self, question: Any, below: int | None) -> list[str]:
        """The ids of the ten nearest that pass."""
        return [d.id for d in self.store.dense_search(question.tolist(), filters=_filter(below), top_k=TOP_K)]


class PlainStore:
    """The plain store, in the form that the driver asks for."""

    def __init__(self, server: EmbeddedServer) -> None:
        self.server, self.store = server, plain_store(server)
        self.store.count_documents()  # makes the table and its indexes

    def write(self, rows: Any, texts: list[str], places: list[int]) -> None:
        """Write with the indexes live."""
        self.store.write_documents(_documents(rows, texts, places))

    def build(self) -> None:
        """Done already."""
        settle(self.server, PLAIN_TABLE)

    def ask(self, question: Any, below: int | None) -> list[str]:
        """The ids of the ten nearest that pass."""
        return [d.id for d in self.store._embedding_retrieval(question.tolist(), filters=_filter(below), top_k=TOP_K)]


def main() -> int:
    """Measure all, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, default=PROJECT / ".venv-peers" / "bin" / "python")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--questions", type=int, default=50)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    logging.getLogger("haystack_integrations").setLevel(logging.CRITICAL)
    data = _data(options.rows, options.questions)
    measured: dict[str, dict[str, Any]] = {}
    for name in ("this store", "pgvector-haystack", *PEERS):
        say(name)
        try:
            measured[name] = _summary(_measured(name, data, options.python), data)
        except subprocess.CalledProcessError as exc:
            print(exc.stderr[-2000:], file=sys.stderr)
    _print(measured)
    if options.json:
        options.json.write_text(json.dumps({**description(), "peers": measured}, indent=1) + "\n", encoding="utf-8")
    return 0 if len(measured) == 2 + len(PEERS) else 1


def _data(rows: int, questions: int) -> dict[str, Any]:
    return {
        "rows": clusters(rows),
        "texts": np.array(list(zipf_texts(rows, words=40))),
        "places": np.random.default_rng(3).permutation(rows),
        "questions": clusters(questions, seed=2),
        "shares": np.array(SHARES),
    }


def _measured(name: str, data: dict[str, Any], python: Path) -> dict[str, Any]:
    with benchmark_server() as server:
        if name == "this store":
            with our_store(server) as ours:
                return measure(OurStore(server, ours), data)
        if name == "pgvector-haystack":
            plain = PlainStore(server)
            found = measure(plain, data)
            plain.store.close()
            return found
        with TemporaryDirectory() as folder:
            path = Path(folder) / "data.npz"
            np.savez(path, **data)
            command = [str(python), "-m", "benchmarks.peer_driver", name, str(path), _url(server)]
            done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer


def _url(server: EmbeddedServer) -> str:
    """The owner's connection string in the one form that SQLAlchemy takes."""
    parts = conninfo_to_dict(server.conninfo(owner=True))
    return f"postgresql://{parts['user']}@/{parts['dbname']}?host={quote(str(parts['host']))}&port={parts['port']}"


def _summary(found: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """Rows a second, and recall, rows returned and p50 by share."""
    rows, places = data["rows"], data["places"]
    summary: dict[str, Any] = {
        "rows_per_second": len(rows) / (found["write_s"] + found["build_s"]),
        "write_s": found["write_s"],
        "build_s": found["build_s"],
    }
    for share, answers in found["answers"].items():
        passing = np.flatnonzero(places < round(len(rows) * float(share)))
        recalls = []
        for (ids, _), question in zip(answers, data["questions"], strict=True):
            best = passing[np.argsort(-(rows[passing] @ question))[:TOP_K]]
            recalls.append(len({f"row {n}" for n in best} & set(ids)) / min(TOP_K, len(passing)))
        summary[share] = {
            "recall": float(np.mean(recalls)),
            "returned": float(np.mean([len(ids) for ids, _ in answers])),
            "p50_ms": p50([ms for _, ms in answers]),
        }
    return summary


def _print(measured: dict[str, dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    shares = [str(share) for share in SHARES]
    table = Table(
        "", "rows/s, index included", *("no filter" if s == "1.0" else f"{float(s):.0%} pass" for s in shares)
    )
    for name, summary in measured.items():
        cells = [f"{number(summary[s]['recall'])} · {summary[s]['p50_ms']:.1f} ms" for s in shares]
        table.add_row(name, f"{summary['rows_per_second']:,.0f}", *cells)
    Console(width=160).print(table)
    print("Cells: recall@10 · p50 of a search.")


def _documents(rows: Any, texts: list[str], places: list[int]) -> list[Document]:
    triples = enumerate(zip(rows, texts, places, strict=True))
    return [Document(id=f"row {n}", content=t, embedding=r.tolist(), meta={"place": p}) for n, (r, t, p) in triples]


def _filter(below: int | None) -> dict[str, Any] | None:
    return {"field": "meta.place", "operator": "<", "value": below} if below is not None else None


if __name__ == "__main__":
    sys.exit(main())
