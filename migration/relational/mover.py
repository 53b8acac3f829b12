"""
A relational source into a schema of PostgreSQL, with a receipt.

Look at the values → check every row → create, load → build keys and indexes → verify. Everything before the creation is
done again by a run that goes on, as it is what the receipt is made of; what is loaded or built is not.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from database.errors import GuardError, InvalidInputError
from migration.progress import OnProgress, Progress, silent
from migration.receipt import PartReceipt, Receipt
from migration.rejects import RejectsFile
from migration.relational.building import Builder
from migration.relational.checking import Check, Checked, undecided
from migration.relational.conversion import Policies, convert
from migration.relational.plan import STATE_TABLE, TablePlan, plan_table, usable_names
from migration.relational.survey import batches, survey
from migration.relational.tables import Table, Tables
from migration.relational.target import RUN, TargetSchema
from migration.relational.verification import TableVerification

REJECTS = "rejects.jsonl"


class UndecidedError(GuardError):
    """
    Rows need a decision; nothing was written.

    :param receipt: What the check found.
    """

    code = "undecided"

    def __init__(self, receipt: Receipt) -> None:
        super().__init__(
            f"Nothing was written: {'; '.join(receipt.problems)}.",
            hint="Choose for each kind with --on KIND=keep or --on KIND=reject.",
        )
        self.receipt = receipt


class Work:
    """What a migration is about, once its tables are known."""

    def __init__(self, plans: dict[str, TablePlan], receipt: Receipt) -> None:
        self.plans, self.receipt = plans, receipt
        self.books = {part.name: part for part in receipt.parts}
        self.checked = Checked()


class TablesMigration:
    """
    A migration of one source into one schema.

    :param source: Where from; the caller closes it.
    :param target: Where to.
    :param policies: By kind of change; see `migration.relational.conversion.KINDS`.
    :param tables: Names of tables; none means all.
    :param receipts: For the rejects file. `None` means `receipts/<run>` in the working folder, and for what only reads, none.
    :param on_progress: Called after each batch.
    :raises InvalidInputError: If the source has no table of a name.
    """

    def __init__(
        self,
        source: Tables,
        target: TargetSchema,
        policies: Policies,
        *,
        tables: Sequence[str] = (),
        receipts: Path | None = None,
        on_progress: OnProgress = silent,
    ) -> None:
        self.source, self.target, self.policies = source, target, policies
        self.folder = receipts
        """Where the receipt belongs, once it is known."""
        self.only = tuple(sorted(set(tables)))
        unknown = set(self.only) - {table.name for table in source.tables()}
        if unknown:
            raise InvalidInputError(f"Tables of the source were expected, but it has no {', '.join(sorted(unknown))}.")
        self._report = on_progress
        self._seconds: dict[str, float] = {}
        self._started = datetime.now(UTC)

    def dry_run(self) -> Receipt:
        """Check everything and write nothing, but the rejects file; `problems` are what would stop a run."""
        self.target.require_usable(self._identity())
        return self._ended(self._checked("dry run"))

    def run(self) -> Receipt:
        """
        Migrate what is not there yet, and prove it.

        :raises UndecidedError: If rows need a decision.
        :raises GuardError: If the schema holds anything but this migration.
        """
        run = self._identity()
        self.target.require_usable(run)
        self.folder = self.folder or Path("receipts") / self._run_id(run["source"])
        work = self._checked("migration")
        if work.receipt.problems:
            raise UndecidedError(self._ended(work))
        state = self.target.begin(run, list(work.plans.values()))
        for plan in work.plans.values():
            if state[plan.target]["step"] == "loading":
                with self._timed("loading"):
                    self._load(work, plan, state[plan.target]["position"])
                with self._timed("building"):
                    self._build(work, plan)
        if state[RUN]["step"] == "loading":
            with self._timed("building"):
                self._refer(work)
        self._prove(work)
        work.receipt.run["resumed"] = any(row["position"] is not None for row in state.values())
        return self._ended(work)

    def verify(self) -> Receipt:
        """
        Read the target back and compare it with the source, writing nothing; with the choices of the migration.

        :raises GuardError: If the schema holds no migration.
        """
        state = self.target.state()
        if state is None:
            raise GuardError(f"A migration was expected in schema {self.target.name}, but there is none to verify.")
        before = state[RUN]["notes"]
        self.policies, self.only = before["choice of policies"], tuple(before["choice of tables"])
        work = self._checked("verification")
        if before["source"] != work.receipt.source["fingerprint"]:
            work.receipt.warnings.append("The source is not the one that was migrated: it has changed since.")
        if state[RUN]["step"] == "loading":
            work.receipt.problems.append("The migration has not ended; run it again to go on")
        self._prove(work)
        return self._ended(work)

    # Steps

    def _identity(self) -> dict[str, Any]:
        """What tells this migration from others."""
        return {
            "source": self.source.fingerprint(),
            "choice of policies": self.policies,
            "choice of tables": list(self.only),
        }

    def _run_id(self, fingerprint: str) -> str:
        return sha256(f"{fingerprint} {self.target.name}".encode()).hexdigest()[:16]

    def _checked(self, kind: str) -> Work:
        plans = self._plans()
        work = Work(plans, self._receipt(kind, plans))
        path = self.folder / REJECTS if self.folder and kind != "verification" else None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        with self._timed("checking"), RejectsFile(path) if path else nullcontext() as rejects:
            check = Check(self.source, plans, self.policies, self._report)
            work.checked = check.run(work.books, rejects)
        if rejects is not None:
            work.receipt.rejects = rejects.summary()
        work.receipt.problems += undecided(work.receipt.parts)
        if (
            self.policies["widened"] == "stop"
        ):  # also a column that becomes wider as its values are written in several forms
            work.receipt.problems += [sentence for plan in plans.values() for sentence in plan.widened]
        return work

    def _plans(self) -> dict[str, TablePlan]:
        tables = [table for table in self.source.tables() if not self.only or table.name in self.only]
        targets = usable_names([table.name for table in tables], [STATE_TABLE])
        strict = self.policies["widened"] == "reject"
        with self._timed("looking at the values"):
            return {
                table.name: plan_table(table, survey(self.source, table, self._report, strict=strict), target)
                for table, target in zip(tables, targets, strict=True)
            }

    def _receipt(self, kind: str, plans: Mapping[str, TablePlan]) -> Receipt:
        chosen: dict[str, Table] = {name: plan.table for name, plan in plans.items()}
        others = [table.name for table in self.source.tables() if table.name not in chosen]
        return Receipt(
            kind=kind,
            source={
                "kind": self.source.kind,
                "location": self.source.location,
                "version": self.source.version,
                "fingerprint": self.source.fingerprint(),
            },
            target={**self.target.one("server"), "schema": self.target.name},
            options={"policies": dict(self.policies), "tables": list(self.only)},
            parts=[
                PartReceipt(name=name, target=f"{self.target.name}.{plan.target}", facts=plan.facts)
                for name, plan in plans.items()
            ],
            left_out=[
                *self.source.left_out,
                *({"name": name, "reason": "not among the tables that were chosen"} for name in others),
                *(item for plan in plans.values() for item in plan.left_out),
            ],
            warnings=[warning for plan in plans.values() for warning in (*plan.widened, *plan.warnings)],
        )

    def _load(self, work: Work, plan: TablePlan, position: int | None) -> None:
        done, gone = 0, work.checked.gone[plan.table.name]
        for batch in batches(self.source.rows(plan.table, after=position)):
            made = convert(plan, batch, self.policies, gone=gone)
            self.target.write(plan, [row for row in made.rows if row is not None], int(batch[-1][0] or 0))
            done += len(batch)
            self._report(Progress(step="loading", part=plan.table.name, done=done, total=plan.table.rows))

    def _build(self, work: Work, plan: TablePlan) -> None:
        builder = Builder(self.target, self.source, plan)
        with self.target.connection.transaction():
            builder.build()
            notes = {"checks": builder.checks, "left_out": builder.left_out, "rows": self.target.count(plan.target)}
            self.target.end_step(plan.target, "built", notes)

    def _refer(self, work: Work) -> None:
        with self.target.connection.transaction():
            found = {}
            for name, plan in work.plans.items():
                builder = Builder(self.target, self.source, plan)
                builder.refer(work.plans, orphans=work.checked.kept_orphans(name))
                found[name] = {"checks": builder.checks, "left_out": builder.left_out}
            self.target.end_step(RUN, "done", {"references": found})

    def _prove(self, work: Work) -> None:
        state = self.target.state() or {}
        references = state[RUN]["notes"].get("references", {})
        for name, plan in work.plans.items():
            books = work.books[name]
            for notes in (state[plan.target]["notes"], references.get(name, {})):
                books.checks.update(notes.get("checks", {}))
                work.receipt.left_out += notes.get("left_out", [])
            with self._timed("verifying"):
                gone = work.checked.gone[name]
                TableVerification(self.source, self.target, plan, self.policies, gone, books).run(self._report)

    def _ended(self, work: Work) -> Receipt:
        receipt = work.receipt
        receipt.source["fingerprint_after"] = self.source.fingerprint()
        receipt.run |= {
            "id": self._run_id(receipt.source["fingerprint"]),
            "started": self._started.isoformat(timespec="seconds"),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": {step: round(seconds, 2) for step, seconds in self._seconds.items()},
        }
        return receipt

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self._seconds[step] = self._seconds.get(step, 0.0) + time.monotonic() - started
