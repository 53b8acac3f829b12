"""What a tenant's questions cost and how they were answered, summed up by day."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from database.sql import statements
from database.tenancy import transaction_settings

if TYPE_CHECKING:
    from database.connection import Database

_SQL = statements(Path(__file__).with_suffix(".sql"))


@dataclass(frozen=True, kw_only=True)
class DayOfUsage:
    """
    One day (UTC).

    :param tokens_in: Tokens that the language model read.
    :param tokens_out: Tokens that it wrote.
    :param tokens_estimated: Whether some of them are estimated.
    :param empty_answers: Questions that the documents did not answer.
    :param interrupted: Answers that whoever asked left before their end.
    :param good_marks: Answers that were marked as good on that day.
    :param bad_marks: Likewise as bad.
    """

    day: date
    questions: int
    tokens_in: int
    tokens_out: int
    tokens_estimated: bool
    empty_answers: int
    interrupted: int
    good_marks: int
    bad_marks: int


def usage_by_day(database: Database, tenant: str, *, days: int) -> list[DayOfUsage]:
    """
    The usage of a tenant, oldest day first; days without any are left out.

    :param days: How many days back, today included.
    """
    settings = transaction_settings(tenant)
    rows = database.without_tenant().read(_SQL["usage_by_day"], {"days": days}, settings=settings)
    return [DayOfUsage(**row) for row in rows]
