"""Keeps folders in sync while they change."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from database.errors import DatabaseUnavailableError, SynapseError
from pipelines.source_files import distinct_roots
from pipelines.sync import SyncPlan, SyncRules, plan_sync

if TYPE_CHECKING:
    from pipelines.indexing_driver import IndexingDriver
    from pipelines.indexing_run import SyncResult

TICK_MS = 1000
"""How often the loop looks whether there is something to do besides changes."""

FULL_LOOK = 300.0
"""Seconds between syncs without a sign of change: network file systems do not announce theirs."""

RETRY = 5.0
"""Seconds until a sync is tried again that found the database away."""


def watch(
    paths: Sequence[str | os.PathLike[str]],
    *,
    driver: IndexingDriver,
    rules: SyncRules,
    on_sync: Callable[[SyncPlan, SyncResult], None],
    on_error: Callable[[SynapseError], None],
    stop: threading.Event | None = None,
) -> None:
    """
    Sync once, and then whenever something below the roots changes. The converter and the model stay loaded.

    What a guard or the database refuses is reported, and the watch goes on.

    :param paths: Files and folders.
    :param driver: Applies the plans.
    :param rules: How plans are made.
    :param on_sync: Called after each sync that changed the index, and after the first.
    :param on_error: Called with what was refused.
    :param stop: Ends the watch.
    :raises InvalidInputError: If a path is not there at the beginning.
    """
    from watchfiles import watch as changes_below

    roots = distinct_roots(paths)
    due = time.monotonic()
    first = True
    ticks = changes_below(
        *roots, step=50, rust_timeout=TICK_MS, yield_on_timeout=True, stop_event=stop, raise_interrupt=True
    )
    # The watch begins with the first tick: what changed before that is seen by the sync that is due then.
    for changes in ticks:
        if not changes and time.monotonic() < due:
            continue
        due = time.monotonic() + FULL_LOOK
        try:
            plan = plan_sync(roots, driver.ledger, rules=rules)
            result = driver.apply(plan)
            if first or plan.to_convert or plan.moved or plan.removed or plan.refused:
                on_sync(plan, result)
            first, rules = False, replace(rules, retry=False)
        except DatabaseUnavailableError as exc:
            due = time.monotonic() + RETRY
            on_error(exc)
        except SynapseError as exc:
            on_error(exc)
