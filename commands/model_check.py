"""Whether vectors look like those of the model that is to answer questions about them."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING

from database.errors import InvalidInputError

if TYPE_CHECKING:
    from migration.engine import Migration
    from migration.source import Record
    from migration.targets import Target

SAMPLE = 8
"""Records of each part that are embedded again."""

ALIKE = 0.9
"""Cosine of a vector and the same text embedded again, from which on the model is taken to be the same."""


def strangers(migration: Migration) -> Callable[[], list[str]]:
    """
    Begin to embed some records of each part again, in a process of its own: a model's memory ends with its process.

    :returns: Waits for it, and gives a warning for each part whose vectors do not look like its model's. It raises
        `InvalidInputError` if the model gives vectors of another dimension.
    """
    samples = [(target, records) for target, records in migration.samples(SAMPLE) if records]
    if not samples:
        return list
    model = samples[0][0].model.model
    texts = [record.content or "" for _, records in samples for record in records]
    processes = ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn"))
    embedded = processes.submit(_embedded, model, texts)
    processes.shutdown(wait=False)

    def compared() -> list[str]:
        try:
            again = iter(embedded.result())
        except (RuntimeError, BrokenProcessPool) as exc:
            return [
                f"{model} could not be loaded here ({exc}), so that nobody has checked whether it made the vectors; "
                "questions need it."
            ]
        found = [(target, records, [next(again) for _ in records]) for target, records in samples]
        return [warning for one in found if (warning := _stranger(*one))]

    return compared


def _embedded(model: str, texts: list[str]) -> list[list[float]]:
    os.dup2(
        os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno()
    )  # a hub that does not answer is complained about at length
    from components.embedders import TextEmbedder

    embedder = TextEmbedder(model=model)
    try:
        embedder.warm_up()
    except Exception as exc:  # whatever a hub, a file or a library raises; not all of it can be sent between processes
        raise RuntimeError(type(exc).__name__) from None
    return [embedder.run(text=text)["embedding"] for text in texts]


def _stranger(target: Target, records: Sequence[Record], again: Sequence[Sequence[float]]) -> str | None:
    import numpy as np

    model, name, dimension = target.model.model, target.part.name, len(again[0])
    if dimension != target.model.dimension:
        raise InvalidInputError(
            f"{name} has vectors of {target.model.dimension} dimensions, but {model} gives {dimension}.",
            hint="Name the model that made them with --model.",
        )
    stored = np.array([record.embedding for record in records], dtype=np.float64)
    computed = np.array(again)
    lengths = np.linalg.norm(computed, axis=1) * np.linalg.norm(stored, axis=1)
    alike = float(np.median((computed * stored).sum(axis=1) / np.where(lengths > 0, lengths, 1)))
    if alike >= ALIKE:
        return None
    return (
        f"The vectors of {name} do not look like those of {model}: the same texts embedded again have a cosine of "
        f"{alike:.2f} to them. Questions will find little; name the model that made them with --model."
    )
