"""
Indexing on many machines: the sources of a plan, dealt out to Ray Data workers.

The caller plans and removes; each worker converts, embeds and writes, by the same `IndexingRun` as on one machine. The
ledger decides who does what: a source and its row are one transaction, and a worker asks for the rows of a group before it
begins. A group whose worker was killed goes to another one, which finds what was written and does the rest.
"""

from __future__ import annotations

import logging
import os
import pickle
import platform
import socket
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from database.errors import ConfigurationError, SynapseError
from pipelines.api import open_ledger
from pipelines.indexing_driver import IndexingDriver
from pipelines.indexing_run import SyncResult

if TYPE_CHECKING:
    from config import Settings
    from database.ledger import Ledger, SourceState
    from pipelines.sync import PlannedSource

GROUP_SOURCES, GROUP_BYTES = 16, 4 << 20
"""Sources that a worker is given at once, at most, and the bytes that end a group: what is looked at again after a kill."""

BLOCKS = 1000
"""Parts that Ray deals out, at most; each costs it some milliseconds."""

RESTARTS = 3
"""How often a worker may die before the run is given up: then it is the sources that kill it, or the machine."""

KNOCK_SECONDS = 10.0
"""Seconds that a cluster's head may take to answer."""


@dataclass(kw_only=True)
class Outcome:
    """
    What became of a group.

    :param result: What was done.
    :param unseen: Sources that the worker's machine did not find, and which are neither indexed nor kept out.
    :param host: The machine.
    :param error: Why the group could not be worked on; then the run ends.
    """

    result: SyncResult
    unseen: list[str] = field(default_factory=list)
    host: str = ""
    error: tuple[str, str] | None = None


class RayDriver(IndexingDriver):
    """
    Applies plans on a Ray cluster.

    :param settings: Of the workers; each opens the database by them, so that it must be reachable from their machines.
    :param ledger: The same database, here.
    :param address: Of a running cluster; `None` means one on this machine, which ends with the driver.
    :param workers: How many, at least 1; `None` means one per processor of the cluster.
    :param on_model: Called once with a sentence on where the work is done.
    :raises ConfigurationError: If Ray is not installed, or other machines could not reach the database.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        ledger: Ledger,
        address: str | None = None,
        workers: int | None = None,
        on_model: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(settings, ledger=ledger, on_model=on_model)
        self._address = address
        self._workers = workers
        if address and not settings.database_url:
            raise ConfigurationError(
                "The workers of a cluster need a database that they can reach, but this is the embedded one.",
                hint="Set DATABASE_URL to a PostgreSQL server, or leave --address away.",
            )
        try:
            import ray  # noqa: F401
        except ImportError:
            raise ConfigurationError(
                "The engine ray needs Ray, which is not installed.",
                hint="Run `pip install -r requirements-ray.txt`, on every machine of the cluster.",
            ) from None

    def _index(self, planned: Sequence[PlannedSource], on_progress: Callable[[SyncResult], None]) -> None:
        with _cluster(self._address) as processors:
            groups = [pickle.dumps(group) for group in grouped(planned)]
            workers = min(self._workers or processors, len(groups))
            if self._on_model:
                where = self._address or "this machine"
                self._on_model(f"{workers} Ray {'worker' if workers == 1 else 'workers'} on {where}.")
            for outcome in self._outcomes(groups, workers=workers):
                self._add(outcome)
                on_progress(self.result)

    def _outcomes(self, groups: Sequence[bytes], *, workers: int) -> Iterator[Outcome]:
        import ray.data
        from ray.exceptions import RayError

        for name in ("ray", "ray.data"):  # each has a level of its own, since it was imported
            logging.getLogger(name).setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", "`ray_remote_args_fn` is deprecated", module=__name__)
        ray.data.DataContext.get_current().enable_progress_bars = False
        dealt = ray.data.from_items(list(groups), override_num_blocks=min(len(groups), BLOCKS))
        done = dealt.map(
            IndexingWorker,
            fn_constructor_args=(self._settings,),
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=1,
            # Deprecated from 2.64 on, as Ray then restarts workers for ever: a group that kills each would never end.
            ray_remote_args_fn=lambda: {"max_restarts": RESTARTS, "max_task_retries": RESTARTS},
        )
        try:
            for row in done.iter_rows():
                yield pickle.loads(row["outcome"])
        except RayError as exc:
            raise SynapseError(
                f"The Ray workers were expected to index every group, but gave up: {_last_line(exc)}",
                hint="What was written stays, and the next run goes on from there; look into Ray's logs for the cause.",
            ) from exc

    def _add(self, outcome: Outcome) -> None:
        if outcome.error:
            message, hint = outcome.error
            raise SynapseError(message, hint=hint)
        into, new = self.result, outcome.result
        for name in ("added", "updated", "unchanged", "chunks", "embedded", "converted"):
            setattr(into, name, getattr(into, name) + getattr(new, name))
        into.failed.update(new.failed)
        for source in outcome.unseen:
            if os.path.lexists(source):  # else it was deleted meanwhile, and the next sync will find it gone
                into.failed[source] = f"the worker on {outcome.host} does not see it: is the folder shared with it?"


class IndexingWorker:
    """
    One of Ray's actors: a converter process and a loaded model, for group after group.

    :param settings: The database, the model, the limits.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._driver: IndexingDriver | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Index the group of a row; gives an `Outcome`, pickled, as the group is."""
        return {"outcome": pickle.dumps(self.index(pickle.loads(row["item"])))}

    def index(self, planned: Sequence[PlannedSource]) -> Outcome:
        """
        Index those sources of a group that nobody has indexed since they were planned.

        An error of the database ends the run with its own words; as an exception it would come with Ray's around them.
        """
        try:
            driver = self._opened()
            before = driver.ledger.read([one.state.source for one in planned])
            todo = [one for one in planned if not is_done(one, before.get(one.state.source))]
            result = driver.index(todo)
            after = driver.ledger.read([one.state.source for one in planned])
        except SynapseError as exc:
            return Outcome(result=SyncResult(), host=platform.node(), error=(exc.message, exc.hint))
        count_found(result, [one for one in planned if one not in todo], before)
        unseen = [one.path for one in todo if not is_done(one, after.get(one.state.source))]
        return Outcome(result=result, unseen=unseen, host=platform.node())

    def _opened(self) -> IndexingDriver:
        if self._driver is None:
            self._driver = IndexingDriver(self._settings, ledger=open_ledger(self._settings))
        return self._driver


def grouped(planned: Sequence[PlannedSource]) -> Iterator[list[PlannedSource]]:
    """Sources in groups of at most 16 and about 4 MiB; a larger file is a group of its own. The order stays."""
    group: list[PlannedSource] = []
    size = 0
    for one in planned:
        if group and (len(group) == GROUP_SOURCES or size + one.state.size > GROUP_BYTES):
            yield group
            group, size = [], 0
        group.append(one)
        size += one.state.size
    if group:
        yield group


def is_done(planned: PlannedSource, known: SourceState | None) -> bool:
    """
    Whether the ledger says that a source was indexed, or kept out, since it was planned: by this run, or by another.

    :param planned: The source; its `checked_at_ns` is of this plan alone.
    :param known: Its row.
    """
    if known is None:
        return False
    if known.checked_at_ns == planned.state.checked_at_ns:
        return known != planned.previous
    wanted = planned.state
    same = (known.content_hash, known.meta_hash, known.fingerprint) == (
        wanted.content_hash,
        wanted.meta_hash,
        wanted.fingerprint,
    )
    return same and known.reason is None and known != planned.previous


def count_found(result: SyncResult, found: Sequence[PlannedSource], known: dict[str, SourceState]) -> None:
    """Count what was done before this group was begun, so that a killed worker's sources are not missing from the sum."""
    for one in found:
        state = known[one.state.source]
        if state.checked_at_ns != one.state.checked_at_ns:
            result.unchanged += 1  # another run has indexed it
            continue
        result.converted += 1
        if state.reason is not None:
            result.failed[state.source] = state.reason
        elif one.previous is None:
            result.added += 1
        else:
            result.updated += 1
        result.chunks += state.chunks


@contextmanager
def _cluster(address: str | None) -> Iterator[int]:
    """A Ray cluster, joined or made; gives the number of its processors."""
    import ray

    try:
        _require_somebody(address)
        ray.init(
            address=address or "local",
            include_dashboard=False if address is None else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=address is None,
        )
    except (OSError, RuntimeError, ValueError) as exc:
        raise ConfigurationError(
            f"A Ray cluster was expected at {address or 'this machine'}, but {_last_line(exc)}",
            hint="Check --address, and that the cluster runs the same versions of Python and Ray.",
        ) from exc
    try:
        yield max(int(ray.cluster_resources().get("CPU", 1)), 1)
    finally:
        ray.shutdown()


def _require_somebody(address: str | None) -> None:
    """Knock at a cluster's address: Ray itself would wait there for minutes, and not be interrupted."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_SECONDS).close()


def _last_line(exc: BaseException) -> str:
    lines = str(exc).strip().splitlines()
    return lines[-1].strip() if lines else type(exc).__name__
