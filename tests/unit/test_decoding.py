"""The encoding of text files."""

# ruff: noqa: RUF001

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.decoding import decoded

POLISH = "Książka leży na stole. Proszę, daj mi ją; będę wdzięczny. Łódź jest piękna o świcie."
RUSSIAN = "Привет, как дела? Это обычный русский текст о погоде."


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Größe, Äpfel und Öl", "utf-8"),
        ("Größe, Äpfel und Öl", "utf-8-sig"),
        ("Größe, Äpfel und Öl", "utf-16"),
        ("Größe, Äpfel und Öl", "utf-32"),
        ("Greetings from Munich, a nice road", "utf-16-le"),
        ("Greetings from Munich, a nice road", "utf-16-be"),
        ("Größe, Äpfel und Öl für fünf € – „schön“", "cp1252"),
        ("café déjà vu où çà et là, élève", "latin-1"),
        ("El niño comió mañana en España", "cp1252"),
        (POLISH, "cp1250"),
        (RUSSIAN, "cp1251"),
        (RUSSIAN, "koi8_r"),
        ("日本語のテキストです。これは長い文章です。" * 3, "shift_jis"),
        ("这是一个中文句子，用来测试编码检测。" * 3, "gb18030"),
    ],
)
def test_encoding_is_found(text: str, encoding: str) -> None:
    assert decoded(text.encode(encoding)) == text


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"])))
def test_every_utf8_text_comes_back(text: str) -> None:
    assert decoded(text.encode()) == text.removeprefix("\ufeff")
