"""
One engine for every source: check everything, write what is new, build indexes, read it all back, and sign a receipt.

    source ─▶ check ─▶ load ─▶ indexes ─▶ verify ─▶ compare search ─▶ receipt
              │        │                  │
              │        └ a transaction per batch, with its checkpoint
              └ hashes, changes, rejects ──┘ compared by id

Checking reads all of the source and decides on every record before the first is written. What is there already is found by its
hash, so that a run that was killed, or is run twice, writes what is missing and ends in the same receipt.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from database.errors import GuardError
from database.migration_runs import (
    Run,
    add_part,
    begin_run,
    conflicts,
    finish_run,
    list_runs,
    note_conflicts,
    originals,
    part_states,
    require_same_options,
    run_id,
    switch_to,
)
from database.migration_target import Writer, has_rows, stored_rows, writer
from database.models import active_model
from database.schema_status import status
from database.tenancy import DEFAULT_TENANT, all_tenants, schema_of
from migration.checking import BATCH, PartCheck, TableBefore
from migration.conversion import Policy
from migration.progress import OnProgress, Progress, silent
from migration.receipt import PartReceipt, Receipt
from migration.record_hash import HashIndex, key_of
from migration.rejects import RejectsFile
from migration.targets import Target, chosen_parts, plan_targets
from migration.verification import CheckedPart, hashed, verify_table

if TYPE_CHECKING:
    from database.bulk_load import LoadProgress
    from database.connection import Database
    from migration.source import Part, Record, Source

BULK_SHARE = 4
"""Indexes are dropped and built anew where at least one row in so many is new."""

REJECTS, RECEIPT = "rejects.jsonl", "receipt"


@dataclass(frozen=True, kw_only=True)
class Options:
    """
    What the user chooses.

    :param parts: Names of the parts; none means all that hold something.
    :param table: One table for all of them; `None` means one for each, named after it.
    :param model: The embedding model that made the vectors; `None` means the active one.
    :param policies: By kind of change; see `migration.conversion.KINDS`.
    :param accept_rank_change: Whether a source whose distance ranks differently from cosine is migrated all the same.
    :param queries: How many vectors are searched for in source and target; 0 leaves the comparison out.
    :param batch: Rows per transaction.
    :param tables: Tables by the parts' ids, as an earlier run chose them.
    """

    parts: tuple[str, ...] = ()
    table: str | None = None
    model: str | None = None
    policies: Mapping[str, Policy]
    accept_rank_change: bool = False
    queries: int = 25
    batch: int = BATCH
    tables: Mapping[str, str] | None = None

    def shaping(self) -> dict[str, Any]:
        """What must stay the same while a run goes on."""
        chosen = {kind: policy for kind, policy in self.policies.items() if policy != "stop"}
        return {"policies": chosen, "accept_rank_change": self.accept_rank_change}


class UndecidedError(GuardError):
    """
    Records need a decision, or search would change; nothing was written.

    :param receipt: What the check found.
    """

    def __init__(self, receipt: Receipt, *, undecided: bool) -> None:
        super().__init__(
            "\n  ".join(["Nothing was written:", *receipt.problems]) + "\n",
            hint="Choose for each kind with --on KIND=keep or --on KIND=reject." if undecided else "",
        )
        self.receipt = receipt


@dataclass
class _Work:
    """What a migration is about, once the source is known."""

    run: str
    fingerprint: str
    targets: list[Target]
    receipt: Receipt
    checks: dict[str, PartCheck] = field(default_factory=dict)
    """By the part's id."""

    def tables(self) -> dict[str, list[Target]]:
        """Targets by table, in order."""
        found: dict[str, list[Target]] = {}
        for target in self.targets:
            found.setdefault(target.model.table_name, []).append(target)
        return found

    def part(self, target: Target) -> PartReceipt:
        """The target's books."""
        return self.receipt.parts[self.targets.index(target)]


class Migration:
    """
    A migration of one source into one database.

    :param source: Where from; the caller closes it.
    :param owner: The database, connected as the owner of its schema, not through a pooler.
    :param options: What the user chose.
    :param receipts: For the rejects file. `None` means `receipts/<run>` in the working folder, and for what only reads, none.
    :param on_progress: Called after each batch.
    """

    def __init__(
        self,
        source: Source,
        owner: Database,
        options: Options,
        *,
        receipts: Path | None = None,
        on_progress: OnProgress = silent,
    ) -> None:
        self.source, self.owner, self.options, self._receipts = source, owner, options, receipts
        self.folder: Path | None = None
        """Where the receipt belongs, once it is known."""
        self.warnings: list[str] = []
        """Sentences of the caller's that belong in the receipt."""
        self.advice: Callable[[], list[str]] = list
        """Called after checking and before anything is written; more such sentences, or an error."""
        self._report = on_progress
        self._seconds: dict[str, float] = {}
        self._started = datetime.now(UTC)

    def samples(self, count: int) -> list[tuple[Target, list[Record]]]:
        """Some records with text and vector of each part, to see whether its model made them."""
        parts, _ = chosen_parts(self.source.parts(), self.options.parts)
        return [(target, list(islice(self._told(target.part), count))) for target in self._targets(parts)]

    def dry_run(self) -> Receipt:
        """
        Check everything and write nothing, but the rejects file where there is a folder.

        :returns: Its `problems` are what would stop a run.
        """
        work = self._planned("dry run")
        self._check(work)
        return self._ended(work)

    def run(self) -> Receipt:
        """
        Migrate what is not there yet, and prove it.

        :raises UndecidedError: If records need a decision; nothing is written.
        """
        work = self._planned("migration")
        require_same_options(self.owner, work.run, self._shaping())
        self._check(work)
        if work.receipt.problems:
            undecided = any(check.undecided for check in work.checks.values())
            raise UndecidedError(self._ended(work), undecided=undecided)
        given = {"source_kind": self.source.kind, "source": self.source.location, "fingerprint": work.fingerprint}
        run = begin_run(self.owner, id=work.run, options=self._shaping(), **given)
        for target in work.targets:
            add_part(
                self.owner, run.id, part=target.part.id, name=target.part.name, model=target.model, create=target.create
            )
        for table_name, targets in work.tables().items():
            self._load(work, table_name, targets)
        self._proven(work)
        self._switch(work)
        return self._ended(work, run=run)

    def verify(self) -> Receipt:
        """
        Read the target back and compare it with the source, writing nothing.

        What is expected there is what the run of this source decided, if there is one.
        """
        self._as_decided()
        work = self._planned("verification")
        self._check(work)
        self._proven(work)
        return self._ended(work)

    # Steps

    def _targets(self, parts: list[Part]) -> list[Target]:
        chosen = self.options
        return plan_targets(self.owner, parts, table=chosen.table, model=chosen.model, tables=chosen.tables)

    def _as_decided(self) -> None:
        """Take over what the newest run of this source has chosen, as far as the user has not."""
        fingerprint = self.source.fingerprint()
        runs = [run for run in list_runs(self.owner) if run.source == self.source.location]
        same = [run for run in runs if run.fingerprint == fingerprint]
        if not same:
            earlier = f"; it has changed since run {runs[-1].id}" if runs else ""
            self.warnings.append(f"No run has migrated this source as it is now{earlier}.")
            return
        states = part_states(self.owner, same[-1].id)
        decided = same[-1].options
        self.options = replace(
            self.options,
            parts=self.options.parts or tuple(states),
            tables={} if self.options.table else {state.part: state.table_name for state in states.values()},
            policies={**self.options.policies, **decided["policies"]},
            accept_rank_change=decided["accept_rank_change"],
        )

    def _planned(self, kind: str) -> _Work:
        with self._timed("hashing the source"):
            self._tell("hashing the source", "", 0, None)
            fingerprint = self.source.fingerprint()
        parts, left_out = chosen_parts(self.source.parts(), self.options.parts)
        targets = self._targets(parts)
        found = status(self.owner)
        receipt = Receipt(
            kind=kind,
            source={
                "kind": self.source.kind,
                "location": self.source.location,
                "version": self.source.version,
                "fingerprint": fingerprint,
            },
            target={
                "database": found.database,
                "server_version": found.server_version,
                "pgvector_version": found.pgvector_version,
                "schema_version": found.schema_version,
            },
            options=self._shaping(),
            left_out=left_out,
            parts=[_books(target) for target in targets],
        )
        tenant = self.owner.tenant or DEFAULT_TENANT
        prefix = "" if tenant == DEFAULT_TENANT else f"{schema_of(tenant)}."
        run = run_id(fingerprint, {target.part.id: prefix + target.model.table_name for target in targets})
        self.folder = self._receipts or (Path("receipts") / run if kind == "migration" else None)
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
        return _Work(run=run, fingerprint=fingerprint, targets=targets, receipt=receipt)

    def _shaping(self) -> dict[str, Any]:
        """What a run must go on with: the options, and the tenant where it is not the default one."""
        tenant = self.owner.tenant or DEFAULT_TENANT
        return self.options.shaping() | ({} if tenant == DEFAULT_TENANT else {"tenant": tenant})

    def _check(self, work: _Work) -> None:
        """Read the source whole: convert, hash, and decide on every record."""
        path = self.folder / REJECTS if self.folder and work.receipt.kind != "verification" else None
        with self._timed("checking"), RejectsFile(path) as rejects:
            for table_name, targets in work.tables().items():
                before = self._before(work, table_name, targets)
                for target in targets:
                    earlier = [work.checks[other.part.id].expected for other in targets if other.part.id in work.checks]
                    check = PartCheck(target, self.options, before=before, earlier=earlier)
                    self._check_part(check, work.part(target), rejects)
                    work.checks[target.part.id] = check
        work.receipt.rejects = rejects.summary()
        if work.receipt.kind != "verification":
            for check in work.checks.values():
                work.receipt.problems += check.problems()
            self.warnings += self.advice()

    def _check_part(self, check: PartCheck, books: PartReceipt, rejects: RejectsFile) -> None:
        part = check.target.part
        records = self.source.records(part)
        while batch := list(islice(records, self.options.batch)):
            check.add(batch, books, rejects)
            self._tell("checking", part.name, books.records, part.count)
        check.end(books)

    def _before(self, work: _Work, table_name: str, targets: list[Target]) -> TableBefore:
        """What the table holds before this run goes on, unless it is only compared."""
        if targets[0].create:
            return TableBefore()
        noted = {key_of(id_) for id_ in conflicts(self.owner, work.run, table_name)}
        states = part_states(self.owner, work.run)
        positions = {target.part.id: states[target.part.id].position for target in targets if target.part.id in states}
        rows = HashIndex()
        if work.receipt.kind != "verification" and has_rows(self.owner, table_name):
            half = targets[0].model.vector_type == "halfvec"
            for number, (key, hash_) in enumerate(hashed(stored_rows(self.owner, table_name), half=half), 1):
                rows.add(key, hash_)
                if number % BATCH == 0:
                    self._tell(f"reading {table_name}", "", number, None)
        return TableBefore(
            rows=rows,
            conflicts=noted,
            positions=positions,
            originals=partial(originals, self.owner, work.run, table_name),
        )

    def _load(self, work: _Work, table_name: str, targets: list[Target]) -> None:
        checks = [work.checks[target.part.id] for target in targets]
        states = part_states(self.owner, work.run)
        alone = any(states[target.part.id].created_model for target in targets)
        for check in checks:
            if check.conflicting:
                note_conflicts(self.owner, work.run, table_name=table_name, ids=check.conflicting)
        new, there = sum(check.new for check in checks), len(checks[0].before.rows)
        model = targets[0].model
        bulk = new * BULK_SHARE >= there and (there == 0 or not model.active)
        with (
            self._timed("loading and indexing"),
            writer(
                self.owner, model, run=work.run, alone=alone, bulk=bulk, report=partial(self._tell_index, table_name)
            ) as target,
        ):
            started = time.monotonic()
            for check in checks:
                self._load_part(check, target)
            self._seconds["loading"] = self._seconds.get("loading", 0.0) + time.monotonic() - started

    def _load_part(self, check: PartCheck, target: Writer) -> None:
        part = check.target.part
        if not check.new and check.before.positions.get(part.id) == check.last:
            return
        after = check.before.positions.get(part.id) if not check.new_before_checkpoint else None
        records = self.source.records(part, after=after)
        done = 0
        while batch := list(islice(records, self.options.batch)):
            rows, replace = check.rows_to_write(batch)
            done += target.write(rows, part=part.id, position=batch[-1].position, replace=replace)
            self._tell("loading", part.name, done, check.new)

    def _proven(self, work: _Work) -> None:
        """Read every table back, and compare searching."""
        from migration.parity import compare_search  # it brings Haystack, which takes more memory than all before

        states = part_states(self.owner, work.run)
        for table_name, targets in work.tables().items():
            made = any(states[t.part.id].created_model for t in targets if t.part.id in states)
            checked = [CheckedPart(work.checks[target.part.id], work.part(target)) for target in targets]
            with self._timed("verifying"):
                verify_table(
                    self.owner, self.source, table_name, checked, all_ours=made, report=partial(self._tell, "verifying")
                )
            for one in checked:
                if self.options.queries and one.check.queries:
                    accept = self.options.accept_rank_change
                    with self._timed("comparing search"):
                        warning = compare_search(self.owner, self.source, one, accept=accept, report=self._tell)
                    work.receipt.warnings += [warning] if warning else []

    def _switch(self, work: _Work) -> None:
        """Questions go to what was migrated where they would find nothing otherwise."""
        active = active_model(self.owner)
        tables = work.tables()
        target = work.targets[0]
        if len(tables) == 1 and not target.model.active and target.model.name != active.name:
            if not any(has_rows(one, active.table_name) for one in all_tenants(self.owner)):
                switch_to(self.owner, work.run, part=target.part.id, model=target.model, previous=active.name)
            else:
                work.receipt.warnings.append(
                    f"Questions still go to {active.name}; `python synapse.py models switch {target.model.name}` sends "
                    "them to what was migrated."
                )
        elif len(tables) > 1:
            names = ", ".join(targets[0].model.name for targets in tables.values())
            work.receipt.warnings.append(
                f"Each collection has a table of its own; `python synapse.py models switch NAME` chooses which answers: {names}."
            )

    def _ended(self, work: _Work, *, run: Run | None = None) -> Receipt:
        receipt = work.receipt
        receipt.warnings = [*self.warnings, *receipt.warnings]
        with self._timed("hashing the source"):
            self._tell("hashing the source again", "", 0, None)
            receipt.source["fingerprint_after"] = self.source.fingerprint()
        receipt.run = {
            "id": work.run,
            "started": self._started.isoformat(timespec="seconds"),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "attempts": run.attempts if run else None,
            "seconds": {step: round(seconds, 2) for step, seconds in self._seconds.items()},
        }
        if run is not None:
            finish_run(self.owner, work.run, receipt.to_dict())
        return receipt

    def _told(self, part: Part) -> Iterator[Record]:
        for record in islice(self.source.records(part), BATCH):
            if record.content and record.embedding is not None and record.embedding.shape == (part.dimension,):
                yield record

    # Telling

    def _tell(self, step: str, part: str, done: int, total: int | None) -> None:
        self._report(Progress(step=step, part=part, done=done, total=total))

    def _tell_index(self, table_name: str, load: LoadProgress) -> None:
        step = "indexing words" if load.step == "keywords" else f"building {load.step}"
        self._tell(step, "", load.done, load.total)

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self._seconds[step] = self._seconds.get(step, 0.0) + time.monotonic() - started


def _books(target: Target) -> PartReceipt:
    part, model = target.part, target.model
    facts = {"dimension": part.dimension, "distance": part.distance, "model": model.model, **part.facts}
    return PartReceipt(name=part.name, target=model.table_name, facts=facts)
