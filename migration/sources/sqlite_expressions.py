"""
SQLite's SQL, as far as table definitions need it: conditions and expressions said in PostgreSQL's words.

Only what means the same in both is translated: comparisons of columns with literals, joined by AND, OR and NOT, IN, BETWEEN,
IS NULL, and a few functions. PostgreSQL's types do the rest: what is compared with another type there fails to be created,
and is named as left out.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""
    (?P<space>\s+|--[^\n]*|/\*.*?(?:\*/|\Z))
  | (?P<blob>[xX]'[0-9A-Fa-f]*')
  | (?P<text>'(?:[^']|'')*')
  | (?P<quoted>"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\])
  | (?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)
  | (?P<name>[^\W\d][\w$]*)
  | (?P<sign><>|<=|>=|==|!=|\|\||<<|>>|->>|->|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_WORDS = {"AND", "OR", "NOT", "IN", "BETWEEN", "IS", "NULL", "ISNULL", "NOTNULL", "TRUE", "FALSE"}
_SIGNS = {"(", ")", ",", "=", "<>", "<", ">", "<=", ">=", "+", "-", "*"}
_SAME_SIGN = {"==": "=", "!=": "<>"}
_FUNCTIONS = {
    "LENGTH": "length",
    "ABS": "abs",
    "COALESCE": "coalesce",
    "LOWER": "lower",
    "UPPER": "upper",
    "TRIM": "btrim",
}
_DEFERRED = "DEFERRABLE INITIALLY DEFERRED"
_COMPARES = {"=", "<>", "IS", "NOT", "IN", "(", ","}


@dataclass(frozen=True)
class Token:
    """
    A piece of SQL.

    :param kind: `blob`, `text`, `quoted`, `number`, `name` or `sign`.
    :param text: As it was written.
    :param start: Where it begins.
    :param end: Where the next may begin.
    """

    kind: str
    text: str
    start: int
    end: int

    @property
    def word(self) -> str:
        """In capitals if it may be a keyword; else as it is."""
        return self.text.upper() if self.kind == "name" else self.text

    @property
    def content(self) -> str:
        """Without its quotes."""
        if self.kind not in ("quoted", "text"):
            return self.text
        mark = self.text[-1]
        return self.text[1:-1].replace(mark * 2, mark) if mark != "]" else self.text[1:-1]


def tokens(sql: str) -> list[Token]:
    """The pieces of a statement, without comments and white space."""
    found = _TOKEN.finditer(sql)
    return [Token(m.lastgroup or "", m[0], m.start(), m.end()) for m in found if m.lastgroup != "space"]


def checks(sql: str) -> Iterator[tuple[str | None, str]]:
    """The CHECK constraints of a CREATE TABLE: name, where there is one, and condition."""
    found = tokens(sql)
    for place, token in enumerate(found[:-1]):
        if token.word == "CHECK" and found[place + 1].text == "(":
            name = found[place - 1].content if place > 1 and found[place - 2].word == "CONSTRAINT" else None
            inside, _ = _group(found, place + 1)
            yield name, sql[inside[0].start : inside[-1].end] if inside else ""


def deferred(sql: str) -> list[bool]:
    """Of the references of a CREATE TABLE, in their order, which are looked at only at the end of a transaction."""
    words = [token.word for token in tokens(sql) if token.kind in ("name", "sign")]
    _, *parts = " ".join(words).split(" REFERENCES ")
    return [_DEFERRED in part and f"NOT {_DEFERRED}" not in part for part in parts]


def collated(sql: str) -> set[str]:
    """The columns of a CREATE TABLE that compare other than byte by byte."""
    found = tokens(sql)
    opening = next((place for place, token in enumerate(found) if token.text == "("), len(found))
    inside, _ = _group(found, opening) if opening < len(found) else ([], 0)
    columns = set[str]()
    for part in _parts(inside):
        words = [token.content.upper() for token in part]
        if "COLLATE" in words[:-1] and words[words.index("COLLATE") + 1] != "BINARY":
            columns.add(part[0].content)
    return columns


def index_parts(sql: str) -> tuple[list[str], str | None]:
    """What stands between the parentheses of a CREATE INDEX, and its WHERE."""
    found = tokens(sql)
    opening = next((place for place, token in enumerate(found) if token.text == "("), None)
    if opening is None:
        return [], None
    inside, closing = _group(found, opening)
    parts = [_without_order(sql, part) for part in _parts(inside)]
    rest = found[closing + 1 :]
    where = sql[rest[1].start :] if len(rest) > 1 and rest[0].word == "WHERE" else None
    return parts, where


_MOMENTS = {
    "CURRENT_TIMESTAMP": "timestamp",
    "DATETIME('NOW')": "timestamp",
    "STRFTIME('%Y-%M-%D%H:%M:%S','NOW')": "timestamp",
    "CURRENT_DATE": "date",
    "DATE('NOW')": "date",
    "CURRENT_TIME": "time",
    "TIME('NOW')": "time",
    "UNIXEPOCH()": "unix",
    "UNIXEPOCH('NOW')": "unix",
    "STRFTIME('%S','NOW')": "unix",
    "CAST(STRFTIME('%S','NOW')ASINT)": "unix",
    "CAST(STRFTIME('%S','NOW')ASINTEGER)": "unix",
}


def moment(default: str) -> str | None:
    """Which time a default stands for: `timestamp`, `date`, `time` or `unix`; `None` if it is none."""
    return _MOMENTS.get(_bare(default))


def is_literal(default: str) -> bool:
    """Whether a default is a number, a text, bytes or a truth value, and no expression."""
    found = [token for token in tokens(default) if token.text not in ("(", ")", "+", "-")]
    return len(found) == 1 and (
        found[0].kind in ("number", "text", "blob", "quoted") or found[0].word in ("TRUE", "FALSE", "NULL")
    )


def _bare(default: str) -> str:
    pieces = [token.text.upper().replace(" ", "") for token in tokens(default)]
    while len(pieces) > 2 and pieces[0] == "(" and pieces[-1] == ")":
        pieces = pieces[1:-1]
    return "".join(pieces)


def translate(expression: str, types: dict[str, str], *, collated: Collection[str] = ()) -> str | None:
    """
    An expression in PostgreSQL's words; `None` if it cannot be said there with the same meaning.

    :param expression: In SQLite's words.
    :param types: PostgreSQL's types of the columns, by their names.
    :param collated: Columns that compare other than byte by byte: they may be given to functions, but not be compared.
    """
    by_name = {name.casefold(): name for name in types}
    found = tokens(expression)
    said: list[str] = []
    for place, token in enumerate(found):
        column = by_name.get(token.content.casefold()) if token.kind in ("name", "quoted") else None
        following = found[place + 1].text if place + 1 < len(found) else ""
        if column is not None and following != "(":
            if column in collated and not _is_argument(found, place):
                return None
            said.append(_column(column, types[column]))
        elif token.kind == "number" and token.text in ("0", "1") and _of_boolean(found, place, by_name, types):
            said.append("true" if token.text == "1" else "false")
        elif token.kind in ("text", "quoted"):  # SQLite takes an unknown name in quotes for text
            if token.text[0] in "[`":
                return None
            said.append(literal(token.content))
        elif token.kind == "number":
            said.append(token.text)
        elif token.word in _FUNCTIONS and following == "(":
            said.append(_FUNCTIONS[token.word])
        elif token.word in _WORDS:
            said.append(token.word)
        elif _SAME_SIGN.get(token.text, token.text) in _SIGNS:
            said.append(_SAME_SIGN.get(token.text, token.text))
        else:
            return None
    return " ".join(said) or None


def literal(text: str) -> str:
    """A text in PostgreSQL's SQL, whatever its settings."""
    escaped = text.replace("'", "''")
    return "E'" + escaped.replace("\\", "\\\\") + "'" if "\\" in text else f"'{escaped}'"


def _column(name: str, sql_type: str) -> str:
    escaped = '"' + name.replace('"', '""') + '"'
    # Byte by byte, as SQLite compares; lower() and upper() then change ASCII letters alone, as SQLite's do.
    return f'({escaped} COLLATE "C")' if sql_type == "text" or sql_type.startswith("varchar") else escaped


def _is_argument(found: list[Token], place: int) -> bool:
    """Whether a column is all that a function is given; what comes out of it compares byte by byte."""
    before = [token.word for token in found[max(place - 2, 0) : place]]
    after = found[place + 1].text if place + 1 < len(found) else ""
    return len(before) == 2 and before[0] in _FUNCTIONS and before[1] == "(" and after == ")"


def _of_boolean(found: list[Token], place: int, by_name: dict[str, str], types: dict[str, str]) -> bool:
    """Whether a number is compared with a truth value: the nearest column before it is one, with a comparison between."""
    for token in reversed(found[:place]):
        column = by_name.get(token.content.casefold()) if token.kind in ("name", "quoted") else None
        if column is not None:
            return types[column] == "boolean"
        if token.kind != "number" and _SAME_SIGN.get(token.word, token.word) not in _COMPARES:
            return False
    return False


def _parts(found: list[Token]) -> Iterator[list[Token]]:
    """What commas part, outside of parentheses."""
    depth, start = 0, 0
    for place, token in enumerate([*found, Token("sign", ",", 0, 0)]):
        depth += (token.text == "(") - (token.text == ")")
        if token.text == "," and depth == 0 and place > start:
            yield found[start:place]
            start = place + 1


def _group(found: list[Token], opening: int) -> tuple[list[Token], int]:
    """What a parenthesis holds, and where it is closed."""
    depth = 0
    for place in range(opening, len(found)):
        depth += (found[place].text == "(") - (found[place].text == ")")
        if depth == 0:
            return found[opening + 1 : place], place
    return found[opening + 1 :], len(found)


def _without_order(sql: str, part: list[Token]) -> str:
    """An indexed expression without `COLLATE …`, `ASC` and `DESC` behind it."""
    while part and part[-1].word in ("ASC", "DESC"):
        part = part[:-1]
    if len(part) > 2 and part[-2].word == "COLLATE":
        part = part[:-2]
    return sql[part[0].start : part[-1].end] if part else ""
