"""What the doctor says: findings, and the kinds of them that there are."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["ok", "unknown", "advice", "warning", "fault"]
Cure = Literal["sql", "shell", "text"]

ORDER: tuple[Severity, ...] = ("ok", "unknown", "advice", "warning", "fault")
"""From what needs nobody to what needs somebody now."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """
    One thing that was looked at.

    :param code: The kind, `Kind.code`; for `ok` and `unknown`, the subject.
    :param subject: What it is about: one line in the terminal.
    :param severity: `fault`: wrong, or about to be. `warning`: works, but slowly or not safely. `advice`: could be better.
        `unknown`: could not be looked at. `ok`: looked at and right.
    :param what: What was found, in one sentence.
    :param why: Why it matters; empty for `ok` and `unknown`.
    :param cure: What mends it: SQL for the owner of the schema, a command, or a sentence, as `cure_kind` says.
    :param fixable: Whether `--fix` does it: nothing is lost, writers hardly wait, and doing it twice does no harm.
    """

    code: str
    subject: str
    severity: Severity
    what: str
    why: str = ""
    cure: str | None = None
    cure_kind: Cure | None = None
    fixable: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As one JSON object."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """
    A kind of finding.

    :param code: Its name, which stays.
    :param severity: `advice`, `warning` or `fault`.
    :param means: What is wrong, for docs/doctor.md.
    :param why: Why it matters.
    :param mended: How, in general; a finding has the exact words.
    """

    code: str
    subject: str
    severity: Severity
    means: str
    why: str
    mended: str

    def sql(self, what: str, *statements: str, fixable: bool = False) -> Finding:
        """A finding that these statements mend, run by the owner of the schema outside of a transaction."""
        return self._found(what, ";\n".join(statements), "sql", fixable)

    def shell(self, what: str, command: str, *, fixable: bool = False) -> Finding:
        """A finding that a command mends."""
        return self._found(what, command, "shell", fixable)

    def text(self, what: str, cure: str) -> Finding:
        """A finding that somebody has to mend by hand."""
        return self._found(what, cure, "text", False)

    def _found(self, what: str, cure: str, cure_kind: Cure, fixable: bool) -> Finding:
        return Finding(
            code=self.code,
            subject=self.subject,
            severity=self.severity,
            what=what,
            why=self.why,
            cure=cure,
            cure_kind=cure_kind,
            fixable=fixable,
        )


def right(subject: str, what: str) -> Finding:
    """What was looked at and is as it should be."""
    return Finding(code=subject, subject=subject, severity="ok", what=what)


def unknown(subject: str, what: str) -> Finding:
    """What could not be looked at, and why."""
    return Finding(code=subject, subject=subject, severity="unknown", what=what)


def worst(findings: list[Finding]) -> Severity:
    """The worst that was found."""
    return max((finding.severity for finding in findings), key=ORDER.index, default="ok")
