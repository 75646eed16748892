"""What GitHub makes of the conditions in a workflow, for what ours use: names, texts, ``== != && || !``, brackets, ``always()``.

Values are compared as GitHub documents it: texts without case, and null with a text never equal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

TOKEN = re.compile(r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<sign>==|!=|&&|\|\||[!()])|(?P<name>[A-Za-z_][\w.-]*))")
FUNCTIONS = {"always": True, "success": True, "failure": False, "cancelled": False}


def evaluate(expression: str, contexts: Mapping[str, Any]) -> Any:
    """The value of an expression, with or without ``${{ }}``. ValueError for what is not understood."""
    text = expression.strip()
    if text.startswith("${{") and text.endswith("}}"):
        text = text[3:-2]
    rest = _tokens(text)
    value = _any_of(rest, contexts)
    if rest:
        raise ValueError(f"not understood from {rest[0]!r} on: {expression}")
    return value


def _tokens(text: str) -> list[str]:
    found, place = [], 0
    while text[place:].strip():
        match = TOKEN.match(text, place)
        if match is None:
            raise ValueError(f"not understood: {text[place:]}")
        found.append(match.group().strip())
        place = match.end()
    return found


def _any_of(rest: list[str], contexts: Mapping[str, Any]) -> Any:
    return _chain(rest, "||", contexts, _all_of, lambda left: bool(left))


def _all_of(rest: list[str], contexts: Mapping[str, Any]) -> Any:
    return _chain(rest, "&&", contexts, _comparison, lambda left: not left)


def _chain(rest: list[str], sign: str, contexts: Mapping[str, Any], part: Callable, decided: Callable[[Any], bool]) -> Any:
    value = part(rest, contexts)
    while rest and rest[0] == sign:
        rest.pop(0)
        following = part(rest, contexts)
        value = value if decided(value) else following
    return value


def _comparison(rest: list[str], contexts: Mapping[str, Any]) -> Any:
    left = _single(rest, contexts)
    if not rest or rest[0] not in ("==", "!="):
        return left
    sign = rest.pop(0)
    return _equal(left, _single(rest, contexts)) == (sign == "==")


def _single(rest: list[str], contexts: Mapping[str, Any]) -> Any:
    word = rest.pop(0)
    if word == "!":
        return not _single(rest, contexts)
    if word == "(":
        value = _any_of(rest, contexts)
        _expect(rest, ")")
        return value
    if word.startswith("'"):
        return word[1:-1].replace("''", "'")
    if word in ("true", "false"):
        return word == "true"
    if rest and rest[0] == "(":
        _expect(rest, "(")
        _expect(rest, ")")
        return FUNCTIONS[word]
    return _looked_up(word, contexts)


def _expect(rest: list[str], word: str) -> None:
    if not rest or rest.pop(0) != word:
        raise ValueError(f"{word!r} is missing")


def _looked_up(name: str, contexts: Mapping[str, Any]) -> Any:
    first, *keys = name.split(".")
    if first not in contexts:
        raise ValueError(f"the context {first!r} is not known")
    value: Any = contexts[first]
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, str) and isinstance(right, str):
        return left.casefold() == right.casefold()
    return type(left) is type(right) and left == right
