"""
The filter language: `lang in ["en", "de"] and year >= 2024 and not draft`.

    expression  = conjunction { "or" conjunction }
    conjunction = negation { "and" negation }
    negation    = "not" negation | "(" expression ")" | comparison
    comparison  = field [ operator value | [ "not" ] "in" list | [ "not" ] "like" string
                        | [ "not" ] "contains" ( value | list ) | [ "not" ] "overlaps" list ]
    operator    = "==" | "=" | "!=" | ">" | ">=" | "<" | "<="
    field       = name { "." name }         names of letters, digits, "_" and "-"; others in backquotes: `my field`
    list        = "[" [ value { "," value } ] "]"
    value       = number | string | date | "true" | "false" | "null"

- A field alone asks whether it is true: `draft` is `draft == true`, and `not draft` also holds where there is no draft.
- Fields are metadata; `meta.` may be written before them and must be for a metadata field named `id` or `content`.
- A dot goes into a mapping, `author.name`; in backquotes it is part of the key: `` `a.b` ``. Two backquotes there are one.
- Strings stand in single or double quotes, with backslash escapes; dates (`2024-01-31`, `2024-01-31T09:30:00Z`) need
  no quotes. `>`, `>=`, `<` and `<=` take numbers and dates.
- `==` is as strict as Haystack's: `year == "2024"` does not find the number 2024. A missing field equals `null`.
- `tags contains "x"` asks a list for an element, `tags contains ["x", "y"]` for all of these, `tags overlaps ["x", "y"]` for
  any. `title like "%x_"` is SQL's: `%` stands for any text, `_` for any character, a backslash before them for themselves.
- Keywords may be written in any case.
"""

from __future__ import annotations

import math
import re
from datetime import datetime
from typing import Any, NamedTuple, NoReturn

from database.errors import InvalidInputError
from database.field_names import join_keys, split_name

Filter = dict[str, Any]

MAX_LENGTH = 20_000
MAX_DIGITS = 4000
"""Python reads no integer of more than 4300."""

MAX_DEPTH = 50
"""Nesting that people do not write, but that would exhaust the stack of whoever translates the filter."""

OWN_FIELDS = ("id", "content")
"""Fields of the document itself; every other field is metadata."""

_DATE = r"\d{4}-\d\d-\d\d(?:[Tt ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:[Zz]|[+-]\d\d:?\d\d)?)?"
_TOKEN = re.compile(
    rf"""\s*(?:
      (?P<date>{_DATE})(?![\w.])
    | (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?![\w.])
    | (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<name>(?:[^\W\d][\w-]*|`(?:[^`]|``)+`)(?:\.(?:[\w-]+|`(?:[^`]|``)+`))*)
    | (?P<operator>==|!=|>=|<=|=|>|<)
    | (?P<mark>[()\[\],])
    | (?P<end>$)
    )""",
    re.VERBOSE | re.DOTALL,
)
_KEYWORDS = ("and", "or", "not", "in", "true", "false", "null", "none")
_CONSTANTS = {"true": True, "false": False, "null": None, "none": None}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


class Token(NamedTuple):
    """A word of an expression: its kind, its text and where it begins."""

    kind: str
    text: str
    start: int


def parse_expression(text: str) -> Filter:
    """
    Translate an expression into a Haystack filter.

    :param text: An expression in the language above.
    :raises InvalidInputError: If it is none; the message shows the place and what was expected there.
    """
    if len(text) > MAX_LENGTH:
        raise InvalidInputError(f"A filter has at most {MAX_LENGTH:,} characters, but this one has {len(text):,}.")
    return _Parser(text).parse()


def is_date(value: str) -> bool:
    """Whether a string can be compared by order: an ISO 8601 date, with or without a time."""
    if not re.fullmatch(_DATE, value):
        return False
    try:
        datetime.fromisoformat(value.upper())
    except ValueError:
        return False
    return True


def qualified(name: str) -> str:
    """Haystack's name of a field: `meta.` before it, unless it is there or the field is the document's own."""
    return name if name in OWN_FIELDS or name.startswith("meta.") else f"meta.{name}"


def has_lone_backslash(pattern: str) -> bool:
    """Whether a pattern of `like` ends in a backslash that stands before nothing."""
    return (len(pattern) - len(pattern.rstrip("\\"))) % 2 == 1


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = self._split()
        self.position = 0
        self.depth = 0

    def parse(self) -> Filter:
        found = self._disjunction()
        if self._now.kind != "end":
            self._fail("'and', 'or' or the end")
        return found

    def _disjunction(self) -> Filter:
        return self._chain("or", self._conjunction)

    def _conjunction(self) -> Filter:
        return self._chain("and", self._negation)

    def _chain(self, word: str, part: Any) -> Filter:
        parts = [part()]
        while self._take(word):
            parts.append(part())
        return parts[0] if len(parts) == 1 else {"operator": word.upper(), "conditions": parts}

    def _negation(self) -> Filter:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self._fail(f"at most {MAX_DEPTH} nested parts")
        if self._take("not"):
            found = {"operator": "NOT", "conditions": [self._negation()]}
        elif self._take("("):
            found = self._disjunction()
            if not self._take(")"):
                self._fail("'and', 'or' or ')'")
        else:
            found = self._comparison()
        self.depth -= 1
        return found

    def _comparison(self) -> Filter:
        if self._now.kind != "name":
            self._fail("a field, 'not' or '('")
        field = qualified(join_keys(split_name(self._next().text)))
        if self._now.kind == "operator":
            operator = "==" if self._now.text == "=" else self._now.text
            self._next()
            return {"field": field, "operator": operator, "value": self._value(ordered=operator[0] in "<>")}
        negated = self._now.kind == "not"
        if negated:
            self._next()
        word = self._now.text.lower() if self._now.kind in ("in", "name") else ""
        if word in ("in", "like", "contains", "overlaps"):
            self._next()
            return self._worded(field, word, negated=negated)
        if negated:
            self._fail("'in', 'like', 'contains' or 'overlaps'")
        return {"field": field, "operator": "==", "value": True}

    def _worded(self, field: str, word: str, *, negated: bool) -> Filter:
        if word == "like":
            return {"field": field, "operator": "not like" if negated else "like", "value": self._like()}
        if word == "in":
            return {"field": field, "operator": "not in" if negated else "in", "value": self._values()}
        several = word == "overlaps" or self._now.kind == "["
        place = self._now
        values = self._values() if several else [self._value()]
        if not values:
            raise _error(self.text, place, "a list that is not empty")
        found = {"field": field, "operator": f"array_{word}", "value": values}
        return {"operator": "NOT", "conditions": [found]} if negated else found

    def _like(self) -> str:
        token = self._now
        pattern = self._literal(token) if token.kind == "string" else None
        if pattern is None or has_lone_backslash(pattern):
            self._fail('a pattern in quotes, such as "a%"')
        self._next()
        return str(pattern)

    def _values(self) -> list[Any]:
        if not self._take("["):
            self._fail("a list in brackets, such as [1, 2]")
        values: list[Any] = []
        while not self._take("]"):
            if values and not self._take(","):
                self._fail("',' or ']'")
            values.append(self._value())
        return values

    def _value(self, *, ordered: bool = False) -> Any:
        token = self._now
        value = self._literal(token)
        if ordered and (isinstance(value, bool) or value is None or (isinstance(value, str) and not is_date(value))):
            self._fail("a number or a date such as 2024-01-31")
        self._next()
        return value

    def _literal(self, token: Token) -> Any:
        if token.kind in _CONSTANTS:
            return _CONSTANTS[token.kind]
        if token.kind == "number":
            return self._number(token.text)
        if token.kind == "string":
            return re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[1]), token.text[1:-1], flags=re.DOTALL)
        if token.kind == "date":
            if not is_date(token.text):
                self._fail("a day that exists")
            return token.text
        return self._fail("a string in quotes, a number, a date, true, false or null")

    def _number(self, text: str) -> int | float:
        if re.fullmatch(r"[+-]?\d+", text) and len(text) <= MAX_DIGITS:
            return int(text)
        if len(text) > MAX_DIGITS or not math.isfinite(number := float(text)):
            self._fail("a number that is not as large")
        return number

    @property
    def _now(self) -> Token:
        return self.tokens[self.position]

    def _next(self) -> Token:
        self.position += 1
        return self.tokens[self.position - 1]

    def _take(self, kind: str) -> bool:
        taken = self._now.kind == kind
        self.position += taken
        return taken

    def _split(self) -> list[Token]:
        tokens: list[Token] = []
        place = 0
        while not tokens or tokens[-1].kind != "end":
            match = _TOKEN.match(self.text, place)
            if match is None or match.lastgroup is None:
                start = place + len(self.text[place:]) - len(self.text[place:].lstrip())
                raise _error(self.text, Token("unknown", self.text[start], start), "a field, an operator or a value")
            kind, text = match.lastgroup, match[match.lastgroup]
            if kind == "mark":
                kind = text
            elif kind == "name" and text.lower() in _KEYWORDS:
                kind = text.lower()
            tokens.append(Token(kind, text, match.start(match.lastgroup)))
            place = match.end()
        return tokens

    def _fail(self, expected: str) -> NoReturn:
        raise _error(self.text, self._now, expected)


def _error(text: str, token: Token, expected: str) -> InvalidInputError:
    """The sentence, and below it the part of the expression around the place, with a caret under it."""
    found = "its end" if token.kind == "end" else repr(token.text[:40])
    begin = max(0, token.start - 60)
    shown = re.sub(r"\s", " ", text[begin : token.start + 60])
    message = f"The filter should have {expected} at character {token.start + 1}, but has {found}."
    return InvalidInputError(
        f"{message}\n    {shown}\n    {' ' * (token.start - begin)}^",
        hint="""Write for example: lang in ["en", "de"] and year >= 2024 and not draft""",
    )
