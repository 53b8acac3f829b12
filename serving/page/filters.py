"""Filters as controls: made from the fields that the documents have, turned into a filter and into a sentence about it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Literal

from database.errors import InvalidInputError

ANY = "(any)"
"""What a list of values offers first; the page's lists cannot hold an empty value."""

Kind = Literal["choice", "text", "number", "date", "element"]
_BOOLEANS = {"yes": True, "no": False}


@dataclass(frozen=True, kw_only=True)
class Control:
    """
    A field that documents can be chosen by.

    :param name: As filters name it.
    :param kind: One of its values, part of its text, a range of numbers, a range of days, or an element of its list.
    :param values: Of a choice: what there is to choose, by what is shown for it.
    :param hints: Of a range: examples of its lower and of its upper end.
    """

    name: str
    kind: Kind
    values: Mapping[str, Any] | None = None
    hints: tuple[str, str] = ("", "")

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of its input elements."""
        return (f"{self.name} from", f"{self.name} until") if self.kind in ("number", "date") else (self.name,)


def choice(name: str, values: Sequence[Any]) -> Control:
    """A control that offers values."""
    if all(isinstance(value, bool) for value in values):
        return Control(name=name, kind="choice", values=_BOOLEANS)
    return Control(name=name, kind="choice", values={str(value): value for value in values})


def filter_from(controls: Sequence[Control], given: Mapping[str, Any]) -> dict[str, Any] | None:
    """
    The filter that the controls stand for.

    :param controls: The fields.
    :param given: What was entered, by input; what is empty does not count.
    :returns: A mapping, as filters may be; `None` where nothing was entered.
    :raises InvalidInputError: If something was entered that is no number, or no day.
    """
    conditions = {}
    for control in controls:
        entered = [_entered(given.get(name)) for name in control.inputs]
        if any(value is not None for value in entered):
            conditions[control.name] = _condition(control, entered)
    return conditions or None


def in_words(controls: Sequence[Control], given: Mapping[str, Any]) -> str:
    """What was entered, for people: `lang: en, year from 2020`; empty where nothing was."""
    said = []
    for control in controls:
        for name in control.inputs:
            value = _entered(given.get(name))
            if value is not None:
                verb = {"text": " contains ", "element": " contains "}.get(control.kind, ": ")
                said.append(f"{name} {value}" if len(control.inputs) > 1 else f"{name}{verb}{value}")
    return ", ".join(said)


def _entered(value: Any) -> str | None:
    text = str(value).strip() if value is not None else ""
    return None if text in ("", ANY) else text


def _condition(control: Control, entered: Sequence[str | None]) -> Any:
    first = entered[0]
    match control.kind:
        case "choice":
            return (control.values or {}).get(first or "", first)
        case "text":
            return {"like": f"%{_literal(first or '')}%"}
        case "element":
            return {"contains": first}
        case "number":
            low, high = (None if text is None else _number(control.name, text) for text in entered)
            return {key: value for key, value in ((">=", low), ("<=", high)) if value is not None}
        case "date":
            low_day, high_day = (None if text is None else _day(control.name, text) for text in entered)
            # A day is meant as a whole, and values may have a time.
            until = high_day + timedelta(days=1) if high_day and high_day < date.max else None
            return {key: day.isoformat() for key, day in ((">=", low_day), ("<", until)) if day is not None}


def _number(name: str, text: str) -> int | float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InvalidInputError(f"The filter on {name} needs a number, but is {text!r}.")
    return int(number) if number.is_integer() else number


def _day(name: str, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InvalidInputError(f"The filter on {name} needs a day such as 2025-03-31, but is {text!r}.") from None


def _literal(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
