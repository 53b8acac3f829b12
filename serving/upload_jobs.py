"""Uploads that are being indexed: what is known of each, kept in a file so that a restart goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

KEPT = timedelta(days=7)
"""How long a job that has ended can be asked for."""

ENDED = ("done", "failed")


@dataclass(kw_only=True)
class UploadJob:
    """
    One upload.

    :param tenant: Whose documents.
    :param user_id: Who may ask for it.
    :param names: Of the files, as they are stored.
    :param folder: Where they are stored; their sources' names begin with it.
    :param stage: `queued`, `indexing`, `waiting` (for the database), `done` or `failed`.
    :param done: How many files are through.
    :param chunks: How many chunks were written.
    :param failed: Why files are kept out, by name.
    """

    tenant: str
    user_id: UUID
    names: list[str]
    folder: Path
    id: UUID = field(default_factory=uuid4)
    stage: str = "queued"
    done: int = 0
    chunks: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    ended_at: datetime | None = None

    @property
    def file(self) -> Path:
        """Where it is kept."""
        return job_folder(self.folder) / f"{self.id}.json"

    @property
    def incoming(self) -> Path:
        """Where its files are until all of them are there, by their numbers."""
        return self.folder / ".incoming" / str(self.id)

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen."""
        return self.stage in ENDED

    def sources(self) -> list[str]:
        """The names of its files in the index."""
        return [str(self.folder / name) for name in self.names]

    def save(self) -> None:
        """Keep it as it is now; a crash leaves the old state or the new one."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        partial = self.file.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self), default=str), encoding="utf-8")
        os.replace(partial, self.file)

    def to_dict(self) -> dict[str, Any]:
        """As clients see it."""
        return {
            "id": self.id,
            "stage": self.stage,
            "done": self.done,
            "total": len(self.names),
            "chunks": self.chunks,
            "sources": self.sources(),
            "failed": [{"name": name, "reason": reason} for name, reason in self.failed.items()],
            "created_at": self.created_at,
            "ended_at": self.ended_at,
        }


def job_folder(folder: Path) -> Path:
    """Where the jobs of a tenant's folder are kept."""
    return folder / ".jobs"


def saved_jobs(folder: Path) -> Iterator[UploadJob]:
    """The jobs of a tenant's folder, the oldest first; those that ended long ago are forgotten."""
    jobs = []
    for path in job_folder(folder).glob("*.json"):
        with suppress(ValueError, KeyError, TypeError):
            jobs.append(_read(path, folder))
    for job in sorted(jobs, key=lambda job: job.created_at):
        if job.ended_at is not None and datetime.now(UTC) - job.ended_at > KEPT:
            job.file.unlink(missing_ok=True)
        else:
            yield job


def _read(path: Path, folder: Path) -> UploadJob:
    told = json.loads(path.read_text(encoding="utf-8"))
    ended = told.pop("ended_at")
    return UploadJob(
        **{name: told[name] for name in ("tenant", "names", "stage", "done", "chunks", "failed")},
        id=UUID(told["id"]),
        user_id=UUID(told["user_id"]),
        folder=folder,
        created_at=datetime.fromisoformat(told["created_at"]),
        ended_at=ended and datetime.fromisoformat(ended),
    )
