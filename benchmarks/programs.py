"""Benchmarks that are programs of their own, as rows of `benchmarks.all`: they print their tables themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.corpora import embedded, scifact
from benchmarks.measuring import MISSED, Finding, Options
from config import PROJECT


def run_index_choices(options: Options) -> list[Finding]:
    """Every index that pgvector offers, on SciFact's sentences if they are given."""
    arguments = ["--rows", str(options.size(10_000, 300)), "--queries", str(options.size(100, 5))]
    if options.quick:
        arguments += ["--dimensions", "384"]
    else:
        arguments += ["--embeddings", str(_real_embeddings(options))] if options.scifact else []
    return [_finding("indexes", "index choices: see their table above", "benchmarks.index_choices", arguments)]


def _real_embeddings(options: Options) -> Path:
    collection = scifact(options.scifact)
    documents = embedded(collection.sentences(50_000), name="sentences", options=options)
    questions = embedded(collection.questions, name="questions", options=options)
    path = options.cache / "index-choices.npz"
    chosen = np.random.default_rng(6).permutation(len(documents))
    np.savez(path, documents=documents[chosen], queries=questions)
    return path


def _finding(row: str, what: str, module: str, arguments: list[str]) -> Finding:
    """Run a program; it has met its figures if it ends with 0, and missed them if it ends with 5."""
    lines = []
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as program:
        for line in program.stdout or ():
            print(line, end="", flush=True)
            lines.append(line.rstrip())
    if program.returncode not in (0, MISSED):
        raise RuntimeError(f"{module} ended with {program.returncode}")
    missed = program.returncode == MISSED
    return Finding(row=row, what=what, value=None, beside={"printed": lines}, failed=missed)
