"""
10,000 random filters over random metadata: does the database read them as the reference does, and does it ever fail?

Filters, metadata and the oracle are those of the tests (`benchmarks.filter_strategies`, `database.filter_reference`); every answer
is compared in three-valued logic, each filter and its negation. The plain store gets a part of the same filters on the same
documents; there, only what it returns is compared.
"""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any, TypeVar

import psycopg
from haystack import Document
from haystack.document_stores.errors import DocumentStoreError
from haystack.errors import FilterError
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import HypothesisWarning
from hypothesis.strategies import SearchStrategy
from psycopg.sql import Identifier

from benchmarks.filter_strategies import contents, differences, filters, metadata
from benchmarks.measuring import Finding, Options, say
from benchmarks.stores import benchmark_server, our_store, plain_store
from database.document_store import SynapseDocumentStore
from database.errors import SynapseError
from database.filter_reference import matches

Thing = TypeVar("Thing")
Filter = dict[str, Any]

DOCUMENTS = 100
FILTERS = 200
AT_ONCE = 20
"""Filters in one statement; where one fails, they are asked one by one."""


def run(options: Options) -> list[Finding]:
    """Fifty rounds, each with new documents and new filters."""
    warnings.simplefilter("ignore", HypothesisWarning)  # of long texts in its representations, which nobody prints
    rounds = options.size(50, 2)
    ours_found, plain_found = Counter[str](), Counter[str]()
    with benchmark_server() as server, our_store(server) as ours:
        plain = plain_store(server)
        for number in range(rounds):
            documents = [
                Document(id=f"{n}", content=content, meta=meta)
                for n, (meta, content) in enumerate(
                    zip(drawn(metadata, DOCUMENTS, number), drawn(contents, DOCUMENTS, number), strict=True)
                )
            ]
            tried = drawn(filters, options.size(FILTERS, AT_ONCE), number)
            ours.delete_all_documents()
            ours.write_documents(documents)
            for first in range(0, len(tried), AT_ONCE):
                ours_found += _ours(ours, documents, tried[first : first + AT_ONCE])
            if number % 5 == 0:
                plain_found += _plain(plain, documents, tried)
                say(f"{ours_found['filters']:,} filters: {dict(ours_found)}; plain store: {dict(plain_found)}")
        plain.close()
    return _findings(ours_found, plain_found)


def drawn(strategy: SearchStrategy[Thing], count: int, number: int) -> list[Thing]:
    """Examples of a strategy: always the same for a number."""
    found: list[Thing] = []

    @seed(number)
    @settings(
        max_examples=count,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(thing: Thing) -> None:
        found.append(thing)

    while len(found) < count:  # Hypothesis stops early where it has seen all of a small strategy
        collect()
    return found[:count]


def _ours(store: SynapseDocumentStore, documents: list[Document], tried: list[Filter]) -> Counter[str]:
    table = Identifier(store.schema_name, store.table_name)
    found = Counter[str](filters=len(tried))
    try:
        found["differences"] = len(differences(store.database, table, documents, tried))
        return found
    except (SynapseError, psycopg.Error):
        pass
    for filter_ in tried:
        try:
            found["differences"] += len(differences(store.database, table, documents, [filter_]))
        except (SynapseError, psycopg.Error) as exc:
            found["errors"] += 1
            say(f"{type(exc).__name__}: {str(exc)[:200]} of {str(filter_)[:200]}")
    return found


def _plain(store: Any, documents: list[Document], tried: list[Filter]) -> Counter[str]:
    found = Counter[str]()
    store.delete_all_documents()
    store.write_documents(documents)
    for filter_ in tried:
        try:
            answer = {document.id for document in store.filter_documents(filter_)}
        except DocumentStoreError:
            found["database errors"] += 1
        except (FilterError, ValueError, TypeError):
            found["refused"] += 1
        except Exception:
            found["other errors"] += 1
        else:
            found["compared"] += 1
            found["wrong"] += answer != {document.id for document in documents if matches(filter_, document) is True}
    found["filters"] = len(tried)
    return found


def _findings(ours: Counter[str], plain: Counter[str]) -> list[Finding]:
    beside = {
        f"plain store: {name}": plain[name]
        for name in ("filters", "compared", "wrong", "refused", "database errors", "other errors")
    }
    what = f"{ours['filters']:,} random filters and their negations"
    return [
        Finding(row="filters", what=f"{what}: differences", value=ours["differences"], at_most=0, beside=beside),
        Finding(row="filters", what=f"{what}: errors", value=ours["errors"], at_most=0),
    ]
