"""
Documents that clients upload: stored below `home/uploads/<tenant>/`, and indexed in the background.

They are indexed as `python synapse.py index` does it, file by file, tenants taking turns; converters run in their own
process. A service that was stopped goes on where it was.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import shutil
import threading
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from database.errors import DatabaseUnavailableError, NotFoundError, SynapseError
from pipelines.api import delete_source, open_ledger, sync_rules, with_model
from pipelines.conversion_worker import ConversionWorker
from pipelines.indexing_driver import IndexingDriver
from pipelines.indexing_run import Embedder
from pipelines.source_files import is_below
from pipelines.sync import plan_sync
from serving.front.refusals import Refusal
from serving.multipart import UploadParser
from serving.upload_jobs import UploadJob, saved_jobs

if TYPE_CHECKING:
    from config import Settings
    from database.accounts import Identity

RETRY_DELAY = 5.0
"""Seconds after which a database that was away is tried again."""

LEFT_FREE = 256 * 1024 * 1024
"""Bytes that uploads leave on the disk: an embedded server that cannot write stops."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
log = logging.getLogger("synapse.uploads")


class Uploads:
    """
    Takes files in, indexes them, and knows how far it is.

    :param settings: Where they are stored, and how they are indexed.
    :param embedder: Makes the embedder of a run; `None` means the model that the settings name.
    """

    def __init__(self, settings: Settings, *, embedder: Callable[[], Embedder] | None = None) -> None:
        self._settings = settings
        self._embedder = embedder
        self._root = Path(os.path.realpath(settings.home)) / "uploads"
        self._jobs: dict[UUID, UploadJob] = {}
        self._turns: OrderedDict[str, deque[UploadJob]] = OrderedDict()
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._converter: ConversionWorker | None = None

    async def start(self) -> None:
        """Begin to index, with what an earlier run left."""
        await asyncio.to_thread(self._take_up)
        self._thread = threading.Thread(target=self._work, name="synapse-uploads", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Stop after the file that is being indexed, or in the middle of a long one, which is begun again next time."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, 5.0)
        if self._converter is not None and not (self._thread and self._thread.is_alive()):
            self._converter.stop()

    def folder(self, tenant: str) -> Path:
        """Where a tenant's files are stored."""
        return self._root / tenant

    def job(self, identity: Identity, job_id: UUID) -> UploadJob:
        """
        An upload of the caller's.

        :raises NotFoundError: If there is none with this id.
        """
        job = self._jobs.get(job_id)
        if job is None or (job.tenant, job.user_id) != (identity.tenant, identity.user_id):
            raise NotFoundError("An upload of yours was expected, but there is none with this id.")
        return job

    async def receive(
        self, identity: Identity, body: AsyncIterator[bytes], *, content_type: str, size: int | None, replace_: bool
    ) -> UploadJob:
        """
        Store the files of a request, and have them indexed.

        :param body: The request's body, as multipart/form-data.
        :param content_type: Its type, with the boundary.
        :param size: Its bytes, where the client says so.
        :param replace_: Whether files of the same name may be replaced.
        :raises Refusal: If the files cannot be taken; then nothing of them is left.
        """
        job = UploadJob(tenant=identity.tenant, user_id=identity.user_id, names=[], folder=self.folder(identity.tenant))
        try:
            await asyncio.to_thread(self._prepare, job, size or 0)
            parser = UploadParser(content_type, job.incoming, max_file_bytes=self._settings.max_file_bytes)
            try:
                async for data in body:
                    await asyncio.to_thread(parser.feed, data)
                job.names = parser.finish()
            finally:
                parser.close()
            await asyncio.to_thread(self._accept, job, replace_)
        except BaseException as exc:
            shutil.rmtree(job.incoming, ignore_errors=True)
            if isinstance(exc, OSError) and exc.errno in _NO_ROOM:
                raise _no_room() from exc
            raise
        return job

    def remove(self, tenant: str, source: str) -> tuple[int, bool]:
        """
        Remove a source from a tenant's index, and its file where it was uploaded.

        :returns: How many chunks are gone, and whether a file is.
        :raises NotFoundError: If the tenant has no such source.
        """
        settings = replace(self._settings, tenant=tenant)
        if source not in open_ledger(settings).read([source]):
            raise NotFoundError("A source of that name was expected in the index, but there is none.")
        uploaded = is_below(os.path.realpath(source), str(self.folder(tenant))) and os.path.isfile(source)
        if uploaded:
            os.unlink(source)  # first: a file without rows would come back with the next run that finds it
        return delete_source(source, settings=settings), uploaded

    def _prepare(self, job: UploadJob, size: int) -> None:
        for folder in (self._root, job.folder, job.incoming.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if shutil.disk_usage(job.folder).free - size < LEFT_FREE:
            raise _no_room()
        job.incoming.mkdir(mode=0o700)

    def _accept(self, job: UploadJob, replace_: bool) -> None:
        with self._changed:
            taken = [name for name in job.names if (job.folder / name).exists()]
            if taken and not replace_:
                raise Refusal(
                    409,
                    f"Files that are not there yet were expected, but {taken[0]!r} is.",
                    code="already_there",
                    hint="Rename it, or replace what is there with ?replace=true.",
                )
            job.save()  # from here on, a crash loses nothing
            self._put_in_place(job)
            self._enqueue(job)

    def _put_in_place(self, job: UploadJob) -> None:
        for number, name in enumerate(job.names):
            with suppress(FileNotFoundError):  # it is in its place already
                os.replace(job.incoming / str(number), job.folder / name)
        shutil.rmtree(job.incoming, ignore_errors=True)

    def _enqueue(self, job: UploadJob) -> None:
        self._jobs[job.id] = job
        self._turns.setdefault(job.tenant, deque()).append(job)
        self._changed.notify_all()

    def _take_up(self) -> None:
        with self._changed:
            for folder in sorted(self._root.iterdir()) if self._root.is_dir() else []:
                for job in saved_jobs(folder):
                    self._jobs[job.id] = job
                    if not job.is_over:
                        self._put_in_place(job)
                        job.stage = "queued"
                        self._enqueue(job)
                shutil.rmtree(folder / ".incoming", ignore_errors=True)  # of requests that were cut off

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                self._index_next_file(job)
            except DatabaseUnavailableError as exc:
                log.warning("waiting for the database: %s", exc.message)
                job.stage = "waiting"
                self._stopping.wait(RETRY_DELAY)
            except Exception as exc:
                self._note_failure(job, exc)
            self._end_turn(job)

    def _next(self) -> UploadJob | None:
        with self._changed:
            while not self._turns and not self._stopping.is_set():
                if self._converter is not None:
                    self._converter.stop()  # its process holds a few hundred megabytes
                self._changed.wait()
            return None if self._stopping.is_set() else next(iter(self._turns.values()))[0]

    def _end_turn(self, job: UploadJob) -> None:
        """The next tenant's turn, and where the upload is through, the next of this tenant's."""
        with self._changed:
            waiting = self._turns.pop(job.tenant)
            if job.is_over:
                waiting.popleft()
            if waiting:
                self._turns[job.tenant] = waiting

    def _index_next_file(self, job: UploadJob) -> None:
        job.stage = "indexing"
        name = job.names[job.done]
        if os.path.exists(job.folder / name):
            settings = replace(self._settings, tenant=job.tenant)
            ledger = open_ledger(settings)
            settings = with_model(settings, ledger)
            if self._converter is None:
                self._converter = ConversionWorker(settings)
            plan = plan_sync([job.folder / name], ledger, rules=sync_rules(settings, retry=True))
            embedder = self._embedder() if self._embedder else None
            driver = IndexingDriver(settings, ledger=ledger, embedder=embedder, converter=self._converter)
            result = driver.apply(plan)
            job.chunks += result.chunks
            for reason in result.failed.values():
                job.failed[name] = reason
        else:
            job.failed[name] = "it was removed before it could be indexed"
        self._end_file(job)

    def _note_failure(self, job: UploadJob, exc: Exception) -> None:
        log.error("an uploaded file could not be indexed: %s", type(exc).__name__, exc_info=exc)
        known = isinstance(exc, SynapseError)
        job.failed[job.names[job.done]] = (
            exc.message if isinstance(exc, SynapseError) and known else "an internal error"
        )
        self._end_file(job)

    def _end_file(self, job: UploadJob) -> None:
        job.done += 1
        if job.done == len(job.names):
            job.stage = "failed" if len(job.failed) == len(job.names) else "done"
            job.ended_at = datetime.now(UTC)
        try:
            job.save()
        except OSError as exc:
            log.error("the state of an upload could not be kept: %s", exc.strerror)


def _no_room() -> Refusal:
    return Refusal(
        507, "Room for the files was expected, but the disk is full.", code="no_room", hint="Tell the operator."
    )
