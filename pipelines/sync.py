"""
What a sync will do: the files below the roots against the ledger.

A plan is made without converting or embedding anything, and without loading what would. Files whose size and time
are those of the ledger are not even read.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from database.errors import GuardError, InvalidInputError
from pipelines.source_files import FoundFile, Scan, is_below, printable, scan
from pipelines.source_metadata import OutsideMetadata, metadata_hash

if TYPE_CHECKING:
    from database.ledger import Ledger, SourceState

SETTLED_NS = 2_000_000_000
"""A file changed less than this before it was looked at may change again within one tick of its file system's clock."""

MASS_DELETE_SOURCES, MASS_DELETE_SHARE = 10, 0.1
"""More sources than this and a larger share of a root than this are not removed without being asked for."""

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedSource:
    """
    A source that is to be converted and embedded, or renamed.

    :param state: What the ledger will hold, but for the number of chunks.
    :param path: Where its bytes are.
    :param meta: Its metadata from outside the file.
    :param previous: What the ledger holds now; of a moved source, under its old name.
    """

    state: SourceState
    path: str
    meta: Mapping[str, Any]
    previous: SourceState | None = None


@dataclass(frozen=True, kw_only=True)
class SyncPlan:
    """
    What a sync will do.

    :param roots: The roots that it concerns.
    :param added: New sources.
    :param changed: Sources whose bytes, outside metadata or converter's version changed, or that are tried again.
    :param moved: Sources with a new name and the bytes of one that is gone.
    :param unchanged: Sources with nothing to convert.
    :param touched: Those of the unchanged and the kept out whose size and time are to be noted anew.
    :param removed: Sources that are gone.
    :param refused: Sources that cannot be converted whatever they hold, with the reason.
    :param kept_out: Sources that failed before and have not changed since, with the reason.
    :param closed: Folders and files that nothing is known about, with the reason; what the index holds of them stays.
    :param skipped: Files passed over, by suffix.
    """

    roots: tuple[str, ...]
    added: list[PlannedSource] = field(default_factory=list)
    changed: list[PlannedSource] = field(default_factory=list)
    moved: list[PlannedSource] = field(default_factory=list)
    touched: list[SourceState] = field(default_factory=list)
    unchanged: list[SourceState] = field(default_factory=list)
    removed: list[SourceState] = field(default_factory=list)
    refused: list[SourceState] = field(default_factory=list)
    kept_out: list[SourceState] = field(default_factory=list)
    closed: Mapping[str, str] = field(default_factory=dict)
    skipped: Mapping[str, int] = field(default_factory=dict)

    @property
    def to_convert(self) -> list[PlannedSource]:
        """What is converted and embedded, in order."""
        return [*self.added, *self.changed]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be written."""
        return not (self.added or self.changed or self.moved or self.touched or self.removed or self.refused)


@dataclass(frozen=True, kw_only=True)
class SyncRules:
    """
    How a plan is made.

    :param fingerprint: Version of converter, chunker and model now.
    :param suffixes: Kinds of files that are indexed.
    :param max_file_bytes: Larger files are refused.
    :param metadata: Metadata from outside the files.
    :param retry: Whether what failed before is tried again although it did not change.
    :param allow_mass_delete: Whether the guard is off.
    """

    fingerprint: str
    suffixes: Collection[str]
    max_file_bytes: int
    metadata: OutsideMetadata = field(default_factory=OutsideMetadata)
    retry: bool = False
    allow_mass_delete: bool = False


def plan_sync(paths: Sequence[str | os.PathLike[str]], ledger: Ledger, *, rules: SyncRules) -> SyncPlan:
    """
    Compare what stands below some roots with the ledger.

    :param paths: Files and folders; removal concerns only what lies below them.
    :param ledger: What is indexed.
    :param rules: How to compare.
    :raises InvalidInputError: If a path is not there.
    :raises GuardError: If so much is gone that it looks like a mistake.
    """
    found = scan(paths, suffixes=rules.suffixes)
    known = ledger.read(found.roots)
    plan = SyncPlan(roots=found.roots, closed=_readable(found.closed), skipped=dict(found.skipped))
    for file in found.files.values():
        _place(file, known.get(file.source), rules=rules, plan=plan)
    for file, reason in found.refused:
        _refuse(_state(file, rules=rules), known.get(file.source), reason, rules=rules, plan=plan)
    _find_gone(found, known, plan=plan)
    _find_moves(plan)
    if not rules.allow_mass_delete:
        guard_mass_delete(plan.removed, known, plan.roots)
    return plan


def guard_mass_delete(removed: Iterable[SourceState], known: Iterable[str], roots: Sequence[str]) -> None:
    """
    Refuse to remove much of a root at once: an unmounted disk looks like one with every file deleted.

    :param removed: What would be removed.
    :param known: What is indexed.
    :param roots: The roots, each guarded by itself.
    :raises GuardError: If more than 10 sources and more than 10 % of a root would go.
    """
    gone, all_known = [state.source for state in removed], list(known)
    for root in roots:
        going = sum(is_below(source, root) for source in gone)
        total = sum(is_below(source, root) for source in all_known)
        if going > MASS_DELETE_SOURCES and going > MASS_DELETE_SHARE * total:
            raise GuardError(
                f"{going} of the {total} sources below {printable(root)} are gone; so many are not removed unasked.",
                hint="Check that the folder is complete, or pass --allow-mass-delete.",
            )


def _place(file: FoundFile, known: SourceState | None, *, rules: SyncRules, plan: SyncPlan) -> None:
    """Put a file where it belongs in the plan."""
    state = _state(file, rules=rules)
    try:
        meta = rules.metadata.of(file.relative, file.sidecar)
    except InvalidInputError as exc:
        _refuse(replace(state, meta_hash=_sidecar_hash(file)), known, exc.message, rules=rules, plan=plan)
        return
    state = replace(state, meta_hash=metadata_hash(meta))
    if file.size > rules.max_file_bytes:
        reason = f"it has {file.size:,} bytes, more than the {rules.max_file_bytes:,} allowed (SYNAPSE_MAX_FILE_BYTES)"
        _refuse(state, known, reason, rules=rules, plan=plan)
        return
    same_stat = known is not None and _stat_tells(file, known)
    try:
        state = replace(state, content_hash=known.content_hash if same_stat and known else file_hash(file.path))
    except FileNotFoundError:
        return  # deleted since the scan: it counts as gone
    except OSError as exc:
        _refuse(state, known, f"it cannot be read: {exc.strerror}", rules=rules, plan=plan)
        return
    _compare(PlannedSource(state=state, path=file.path, meta=meta, previous=known), rules=rules, plan=plan)


def _compare(planned: PlannedSource, *, rules: SyncRules, plan: SyncPlan) -> None:
    state, known = planned.state, planned.previous
    if known is None:
        plan.added.append(planned)
    elif not _is_same(state, known) or (known.reason is not None and rules.retry):
        plan.changed.append(planned)
    else:
        (plan.kept_out if known.reason is not None else plan.unchanged).append(known)
        if (state.size, state.mtime_ns) != (known.size, known.mtime_ns) or _is_settled(state, known):
            plan.touched.append(replace(state, reason=known.reason, chunks=known.chunks))


def _is_same(state: SourceState, known: SourceState) -> bool:
    return (state.content_hash, state.meta_hash, state.fingerprint) == (
        known.content_hash,
        known.meta_hash,
        known.fingerprint,
    )


def _stat_tells(file: FoundFile, known: SourceState) -> bool:
    """Whether size and time are enough to know that the bytes are the same."""
    same = (file.size, file.mtime_ns) == (known.size, known.mtime_ns)
    return same and bool(known.content_hash) and known.checked_at_ns - known.mtime_ns > SETTLED_NS


def _is_settled(state: SourceState, known: SourceState) -> bool:
    """Whether a look that came too early can be replaced by one that will do for the next sync."""
    return state.checked_at_ns - state.mtime_ns > SETTLED_NS >= known.checked_at_ns - known.mtime_ns


def _refuse(state: SourceState, known: SourceState | None, reason: str, *, rules: SyncRules, plan: SyncPlan) -> None:
    """Without its bytes a source is the same as before if it is refused for the same reason."""
    refused = replace(state, reason=reason)
    if known is not None and known.reason == reason and _is_same(refused, known) and not rules.retry:
        plan.kept_out.append(known)
    else:
        plan.refused.append(refused)


def _find_gone(found: Scan, known: Mapping[str, SourceState], *, plan: SyncPlan) -> None:
    planned = [p.state.source for p in plan.to_convert]
    states = [s.source for group in (plan.unchanged, plan.refused, plan.kept_out) for s in group]
    seen = {*planned, *states}
    for source, state in known.items():
        if source not in seen and not any(is_below(source, folder) for folder in found.closed):
            plan.removed.append(state)


def _find_moves(plan: SyncPlan) -> None:
    """Pair new sources with those gone that had the same bytes, suffix, outside metadata and version."""
    gone: dict[tuple[str, ...], list[SourceState]] = defaultdict(list)
    for state in plan.removed:
        if state.reason is None:
            gone[_identity(state)].append(state)
    added, plan.added[:] = list(plan.added), []
    for planned in added:
        candidates = gone.get(_identity(planned.state))
        if not candidates:
            plan.added.append(planned)
            continue
        name = os.path.basename(planned.state.source)
        old = next((state for state in candidates if os.path.basename(state.source) == name), candidates[0])
        candidates.remove(old)
        plan.moved.append(replace(planned, previous=old, state=replace(planned.state, chunks=old.chunks)))
    moved = {planned.previous.source for planned in plan.moved if planned.previous}
    plan.removed[:] = [state for state in plan.removed if state.source not in moved]


def _identity(state: SourceState) -> tuple[str, ...]:
    suffix = os.path.splitext(state.source)[1].lower()
    return (state.content_hash, state.meta_hash, state.fingerprint, suffix)


def _state(file: FoundFile, *, rules: SyncRules) -> SourceState:
    from database.ledger import SourceState

    return SourceState(
        source=file.source,
        root=printable(file.root),
        size=file.size,
        mtime_ns=file.mtime_ns,
        checked_at_ns=file.checked_at_ns,
        content_hash="",
        meta_hash="",
        fingerprint=rules.fingerprint,
    )


def file_hash(path: str) -> str:
    """sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _sidecar_hash(file: FoundFile) -> str:
    try:
        return file_hash(file.sidecar or "")
    except OSError:
        return ""


def _readable(closed: Mapping[str, str]) -> dict[str, str]:
    return {printable(path): reason for path, reason in closed.items()}
