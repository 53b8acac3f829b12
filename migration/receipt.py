"""
What a migration proves: which data came from where, what became of each record, and whether the books closed.

Whatever differs from one run to the next, times above all, stands under `run`; the rest is the same for the same source,
target and choices, however often the run was interrupted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

SHOWN = 20
"""How many ids of a finding are named; the count is always whole."""


def printable(text: object) -> str:
    """Text that came from a source, without what would steer a terminal or break a line."""
    return "".join(character if character.isprintable() else "\ufffd" for character in str(text))


@dataclass(kw_only=True)
class Finding:
    """
    Records that are not as they should be.

    :param count: How many.
    :param examples: The first of them: ids, or `{id, …}` with what was expected and found.
    """

    count: int = 0
    examples: list[Any] = field(default_factory=list)

    def add(self, example: Any) -> None:
        """Count one more, and name it while there is room."""
        self.count += 1
        if len(self.examples) < SHOWN:
            self.examples.append(example)


@dataclass(kw_only=True)
class Change:
    """
    A conversion that loses something.

    :param policy: `keep` or `reject`, as the user chose; `stop` where nobody has chosen.
    :param records: How many records it concerns.
    """

    policy: str
    records: int = 0


@dataclass(kw_only=True)
class PartReceipt:
    """
    The books of one part: a collection, a table.

    :param name: Its name in the source.
    :param target: The table that it went to.
    :param records: Ids, or rows, in the source.
    :param copied: Of these, in the target exactly as they were.
    :param changed: In the target with a change that has a name.
    :param rejected: Not in the target, and in the rejects file.
    :param changes: By the name of the change.
    :param notes: Counts of what is worth knowing and changes nothing.
    :param source_checksum: Sum of the records' hashes as they are expected in the target; 32 hexadecimal digits.
    :param target_checksum: The same, of what was read back.
    :param missing: Expected and not there.
    :param different: There with other contents.
    :param extra: There without coming from the source.
    :param checks: What else was measured, each with `passed` and whatever describes it: parity, foreign keys.
    :param facts: Of the source: dimension, distance, who wrote it.
    """

    name: str
    target: str
    records: int = 0
    copied: int = 0
    changed: int = 0
    rejected: int = 0
    changes: dict[str, Change] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)
    source_checksum: str = ""
    target_checksum: str = ""
    missing: Finding = field(default_factory=Finding)
    different: Finding = field(default_factory=Finding)
    extra: Finding = field(default_factory=Finding)
    checks: dict[str, dict[str, Any]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def open(self) -> list[str]:
        """Why the books of this part are open, a sentence each; nothing if they are closed."""
        reasons = []
        accounted = self.copied + self.changed + self.rejected
        if accounted != self.records:
            reasons.append(f"{self.name}: {self.records:,} records, but {accounted:,} are accounted for")
        for finding, text in (
            (self.missing, "missing from"),
            (self.different, "different in"),
            (self.extra, "in, but not from the source,"),
        ):
            if finding.count:
                reasons.append(f"{self.name}: {finding.count:,} {text} {self.target}")
        if self.target_checksum and self.source_checksum != self.target_checksum and not reasons:
            reasons.append(f"{self.name}: the checksums of source and target differ")
        reasons += [
            f"{self.name}: {check}: {facts.get('found', 'did not pass')}"
            for check, facts in self.checks.items()
            if not facts["passed"]
        ]
        return reasons


@dataclass(kw_only=True)
class Receipt:
    """
    A migration, or its verification, as a whole.

    :param kind: `migration`, `verification` or `dry run`.
    :param source: `{kind, location, version, fingerprint, fingerprint_after}`.
    :param target: `{database, server_version, pgvector_version, schema_version}`, as far as they apply.
    :param options: What the user chose: policies by kind, and whatever else shapes the result.
    :param parts: What was migrated.
    :param left_out: What was not: `{name, reason}`.
    :param rejects: `{path, lines, sha256}` of the rejects file; the path relative to the receipt.
    :param warnings: Sentences that a person should read.
    :param problems: Why the books are open, where it is not about a part.
    :param run: What differs between runs: `{id, program, started, finished, seconds, resumed}`.
    """

    kind: str
    source: dict[str, Any]
    target: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)
    parts: list[PartReceipt] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)
    rejects: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    run: dict[str, Any] = field(default_factory=dict)

    def open(self) -> list[str]:
        """Why the books are open, a sentence each; nothing if they are closed."""
        changed = self.source.get("fingerprint_after") not in (None, self.source.get("fingerprint"))
        return [
            *(["The source has changed while it was read"] if changed else []),
            *self.problems,
            *(reason for part in self.parts for reason in part.open()),
        ]

    @property
    def closed(self) -> bool:
        """Whether every record is accounted for and was found in the target as expected."""
        return not self.open()

    @property
    def rejected(self) -> int:
        """Records that are in the rejects file and not in the target."""
        return sum(part.rejected for part in self.parts)

    def to_dict(self) -> dict[str, Any]:
        """As one JSON object."""
        return {"receipt": 1, "closed": self.closed, "open": self.open(), **asdict(self)}
