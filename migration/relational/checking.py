"""The check before anything is written: which rows are copied, changed, rejected, and which stop the run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from migration.progress import OnProgress, Progress
from migration.receipt import Change, PartReceipt
from migration.rejects import RejectsFile
from migration.relational.conversion import KINDS, Converted, Loss, Policies, checksum, convert, row_hash
from migration.relational.plan import TablePlan
from migration.relational.survey import batches
from migration.relational.tables import ForeignKey, Row, Tables


@dataclass
class Checked:
    """
    What is known of the rows that are not simply copied.

    :param gone: Positions of rejected rows, by table.
    :param orphans: By table and foreign key, the positions of rows that refer to nothing, and what they refer to.
    """

    gone: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    orphans: dict[str, dict[str, dict[int, Row]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(dict))
    )

    def kept_orphans(self, table: str) -> dict[str, int]:
        """How many rows that refer to nothing are in the target, by foreign key."""
        gone = self.gone[table]
        return {label: len(rows.keys() - gone) for label, rows in self.orphans[table].items()}


class Check:
    """
    Goes through all tables.

    :param plans: By the source's names.
    """

    def __init__(self, source: Tables, plans: Mapping[str, TablePlan], policies: Policies, report: OnProgress) -> None:
        self.source, self.plans, self.policies, self.report = source, plans, policies, report
        self.found = Checked()

    def run(self, books: Mapping[str, PartReceipt], rejects: RejectsFile | None) -> Checked:
        """Find what is rejected, and what is rejected for that; then count every row."""
        if any(policy == "reject" for kind, policy in self.policies.items() if kind != "orphan"):
            for plan in self.plans.values():
                self._reject(plan)
        self._find_orphans()
        for name, plan in self.plans.items():
            self._count(plan, books[name], rejects)
        return self.found

    def _reject(self, plan: TablePlan) -> None:
        for batch in batches(self.source.rows(plan.table)):
            made = convert(plan, batch, self.policies, gone=set())
            refused = {loss.place for loss in made.losses if self.policies[loss.kind] == "reject"}
            self.found.gone[plan.table.name].update(int(batch[place][0]) for place in refused)  # type: ignore[arg-type]

    def _find_orphans(self) -> None:
        """As often as a rejected row leaves others behind."""
        more = True
        while more:
            more = False
            for plan in self.plans.values():
                name = plan.table.name
                for key in filter(self._leads_somewhere, plan.table.foreign_keys):
                    new = {
                        position: values
                        for position, values in self.source.orphans(plan.table, key, gone=self.found.gone)
                        if position not in self.found.gone[name]
                    }
                    self.found.orphans[name][key.label].update(new)
                    if new and self.policies["orphan"] == "reject":
                        self.found.gone[name].update(new)
                        more = True

    def _leads_somewhere(self, key: ForeignKey) -> bool:
        return key.table in self.plans and bool(key.to_columns)

    def _count(self, plan: TablePlan, books: PartReceipt, rejects: RejectsFile | None) -> None:
        table, total = plan.table, 0
        orphans = self.found.orphans[table.name]
        for batch in batches(self.source.rows(table)):
            made = convert(plan, batch, self.policies, gone=self.found.gone[table.name])
            losses = self._by_row(batch, made, orphans)
            for place, row in enumerate(made.rows):
                if place in losses:
                    action = self._note(plan, batch[place], losses[place], books, rejects)
                    setattr(books, action, getattr(books, action, 0) + 1)
                else:
                    books.copied += 1
                total += row_hash(row) if row is not None else 0
            books.records += len(batch)
            self.report(Progress(step="checking", part=table.name, done=books.records, total=table.rows))
        books.source_checksum = checksum(total)

    def _by_row(
        self, batch: list[Row], made: Converted, orphans: Mapping[str, Mapping[int, Row]]
    ) -> dict[int, list[Loss]]:
        losses: dict[int, list[Loss]] = defaultdict(list)
        for loss in made.losses:
            losses[loss.place].append(loss)
        for label, rows in orphans.items():
            for place, row in enumerate(batch):
                if row[0] in rows:
                    original: Any = list(rows[row[0]])  # type: ignore[index]
                    losses[place].append(Loss(place, "orphan", label, original))
        return losses

    def _note(
        self, plan: TablePlan, row: Row, losses: Iterable[Loss], books: PartReceipt, rejects: RejectsFile | None
    ) -> str:
        """Count a row, write its originals, and say what becomes of it."""
        kinds = {loss.kind for loss in losses}
        chosen = {self.policies[kind] for kind in kinds}
        action = "stopped" if "stop" in chosen else "rejected" if "reject" in chosen else "changed"
        for kind in sorted(kinds):
            books.changes.setdefault(kind, Change(policy=self.policies[kind])).records += 1
        if rejects is not None:
            for loss in losses:
                if action != "changed" or not loss.lossless:
                    original = _whole(plan, row) if action == "rejected" else loss.original
                    rejects.write(
                        part=plan.table.name,
                        id=_shown_key(plan, row),
                        kind=loss.kind,
                        action=action,
                        field=loss.column,
                        original=original,
                    )
        return action


def undecided(parts: Iterable[PartReceipt]) -> list[str]:
    """What needs a decision, a sentence for each kind."""
    counts: dict[str, int] = defaultdict(int)
    for part in parts:
        for kind, change in part.changes.items():
            if change.policy == "stop":
                counts[kind] += change.records
    return [f"{count:,} row{'s' * (count > 1)}: {kind}, {KINDS[kind]}" for kind, count in counts.items()]


def _whole(plan: TablePlan, row: Row) -> dict[str, Any]:
    """A row that is not in the target, as it was."""
    return {column.name: value for column, value in zip(plan.table.columns, row[1:], strict=True)}


def _shown_key(plan: TablePlan, row: Row) -> Any:
    """What tells a row apart in the source: its primary key, or its hidden number."""
    key = [row[plan.table.place(name)] for name in plan.table.key]
    return row[0] if not key or None in key else key[0] if len(key) == 1 else key
