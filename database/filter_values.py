"""Values that filters compare with: what each is in PostgreSQL, and which of them a document can hold."""

from __future__ import annotations

import math
from datetime import datetime
from decimal import Decimal
from typing import Any

from dateutil.parser import isoparse

_EXACT_INTEGERS = 2.0**53
_MAX_DIGITS = 4300


def stored_number(value: float) -> Decimal:
    """As `json_text` writes it; beyond what is stored, infinity compares alike."""
    if isinstance(value, int) and not is_storable_number(value):
        return Decimal("Infinity") if value > 0 else Decimal("-Infinity")
    if isinstance(value, int) or abs(value) >= _EXACT_INTEGERS:
        return Decimal(value)
    return Decimal(float.__repr__(value))


def is_storable_number(value: float) -> bool:
    """Whether a document can hold the number."""
    return abs(value) < 10**_MAX_DIGITS if isinstance(value, int) else math.isfinite(value)


def is_storable_text(text: str) -> bool:
    """Whether a document can hold the text: PostgreSQL knows neither U+0000 nor halves of a surrogate pair."""
    return "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def iso_date(value: Any) -> datetime | None:
    """The date that a value is, or that a text is in ISO 8601 with a full date; `None` for what is no date."""
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str) or len(value) < 10 or not value.isascii():
        return None
    if not (value[:4] + value[5:7] + value[8:10]).isdigit() or value[4] + value[7] != "--" or value[10:11] not in "Tt ":
        return None
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        try:
            parsed: datetime = isoparse(value)  # 24:00, which fromisoformat does not know
        except (ValueError, OverflowError):
            return None
        return parsed


def depth_of(value: Any) -> int:
    """How deeply lists and mappings are nested; 0 for what is neither."""
    if not isinstance(value, list | dict):
        return 0
    return 1 + max(map(depth_of, value.values() if isinstance(value, dict) else value), default=0)


def has_truth_or_its_number(value: Any) -> bool:
    """Whether true, false, 1 or 0 is anywhere in it: jsonb tells these apart, Python does not."""
    if isinstance(value, list | dict):
        return any(map(has_truth_or_its_number, value.values() if isinstance(value, dict) else value))
    return isinstance(value, int | float) and value in (0, 1)
