"""What a tenant has indexed, as far as the page shows it before anything is asked: fields to filter by, topics to ask about."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from components.filter_expression import is_date
from components.source_meta import INTERNAL, RESERVED
from database.errors import SynapseError
from serving.page.answer_text import short_name
from serving.page.filters import Control, choice

if TYPE_CHECKING:
    from collections.abc import Mapping

    from database.document_store import SynapseDocumentStore
    from serving.page.sessions import Visitor
    from serving.service import Service

LIFETIME = 300.0
"""Seconds for which an answer holds."""

PATIENCE = 3.0
"""Seconds that the page waits; what takes longer is there the next time."""

MOST_CONTROLS = 12
MOST_VALUES = 20
"""Different values of a field that are offered as a list; of a field with more, some letters are asked for."""

MOST_TOPICS = 4
_OURS = ("file_type", "language", "modified")
"""Fields that every document has and that are worth filtering by, behind those that people gave."""

log = logging.getLogger("synapse.page")


@dataclass(frozen=True, kw_only=True)
class Indexed:
    """
    What there is.

    :param controls: Fields to filter by, the declared ones first.
    :param topics: What some documents are about, in their own words; empty where nothing is indexed.
    """

    controls: tuple[Control, ...] = ()
    topics: tuple[str, ...] = ()


_known: WeakKeyDictionary[Service, dict[str, tuple[float, asyncio.Task[Indexed]]]] = WeakKeyDictionary()


async def indexed(visitor: Visitor) -> Indexed | None:
    """What the visitor's tenant has; `None` while that is not known: the database is away, or slow."""
    tenants = _known.setdefault(visitor.service, {})
    asked, task = tenants.get(visitor.identity.tenant, (0.0, None))
    if task is None or time.monotonic() - asked > LIFETIME or (task.done() and _is_worthless(task)):
        task = asyncio.create_task(_read(visitor))
        tenants[visitor.identity.tenant] = (time.monotonic(), task)
    try:
        return await asyncio.wait_for(asyncio.shield(task), PATIENCE)
    except (SynapseError, TimeoutError):
        return None


def _is_worthless(task: asyncio.Task[Indexed]) -> bool:
    """Whether to ask again at once: it failed, or there was nothing yet."""
    return task.cancelled() or task.exception() is not None or not task.result().topics


async def _read(visitor: Visitor) -> Indexed:
    service = visitor.service
    found = await service.search(visitor.identity, "overview, introduction, rules and times", top_k=20)
    if not found.documents:
        return Indexed()
    topics = dict.fromkeys(topic for topic in (_topic(document.meta) for document in found.documents) if topic)
    controls = await service.in_thread(_controls, service, visitor.identity.tenant)
    return Indexed(controls=controls, topics=tuple(topics)[:MOST_TOPICS])


def _topic(meta: Mapping[str, Any]) -> str:
    heading = str(meta.get("heading") or "").rsplit(" > ", 1)[-1]
    topic = " ".join((heading or str(meta.get("title") or short_name(str(meta.get("source", ""))))).split())
    if not topic[:1].isupper():
        return ""  # names in code and of files, which nobody would ask about
    return topic if len(topic) <= 60 else f"{topic[:59]}…"


def _controls(service: Service, tenant: str) -> tuple[Control, ...]:
    from database.metadata_fields import declared_fields
    from pipelines.query import document_store, question_model

    settings = service.settings_of(tenant)
    model = question_model(settings)
    store = document_store(settings, model)
    types = store.sample_metadata_fields()
    declared = [field.name for field in declared_fields(store.database, model.table_name)]
    given = sorted(name for name in types if name not in RESERVED | INTERNAL | {*_OURS, *declared})
    names = [*declared, *given, *(name for name in _OURS if name in types)]
    made = (_control(store, name, types.get(name, set())) for name in dict.fromkeys(names))
    controls: list[Control] = []
    for control in made:
        if control is not None and len(controls) < MOST_CONTROLS:
            controls.append(control)
    return tuple(controls)


def _control(store: SynapseDocumentStore, name: str, types: set[str]) -> Control | None:
    types = types - {"null"}
    if types == {"number"}:
        ends = store.get_metadata_field_min_max(name)
        return Control(name=name, kind="number", hints=(f"{ends['min']:g}", f"{ends['max']:g}"))
    if types == {"boolean"}:
        return choice(name, [True, False])
    if types == {"array"}:
        return Control(name=name, kind="element")
    if types != {"string"}:
        return None  # mappings, and fields that are of several types
    values, total = store.get_metadata_field_unique_values(name, size=MOST_VALUES)
    texts = [value for value in values if isinstance(value, str) and value.strip()]
    if texts and all(map(is_date, texts)):
        return Control(name=name, kind="date", hints=(min(texts)[:10], max(texts)[:10]))
    if total <= MOST_VALUES and len(texts) > 1:
        return choice(name, texts)
    return Control(name=name, kind="text") if total > MOST_VALUES else None
