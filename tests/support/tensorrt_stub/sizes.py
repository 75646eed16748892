"""Symbolic sizes that carry their value: what TensorRT's expression builder would compute, computed at once.

TensorRT makes its own only inside a builder. These are integers, so that the Python side of the bindings takes them for constants
to wrap; ``fixed`` says whether TensorRT would know the number while it builds.
"""

from __future__ import annotations

from collections.abc import Callable

OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "SUM": lambda a, b: a + b,
    "SUB": lambda a, b: a - b,
    "PROD": lambda a, b: a * b,
    "MAX": max,
    "MIN": min,
    "FLOOR_DIV": lambda a, b: a // b,
    "CEIL_DIV": lambda a, b: -(-a // b),
    "EQUAL": lambda a, b: int(a == b),
    "LESS": lambda a, b: int(a < b),
}


class Size(int):
    """A dimension."""

    fixed: bool

    def __new__(cls, value: int, fixed: bool = True) -> Size:
        size = super().__new__(cls, value)
        size.fixed = fixed
        return size

    def is_constant(self) -> bool:
        return self.fixed

    def get_constant_value(self) -> int:
        assert self.fixed, "the value of a size that is only known at run time was asked for"
        return int(self)


class Builder:
    """Stands for ``IExprBuilder``."""

    def constant(self, value: int) -> Size:
        return value if isinstance(value, Size) else Size(value)

    def operation(self, operation: object, first: Size, second: Size) -> Size:
        value = OPERATIONS[operation.name](int(first), int(second))  # type: ignore[attr-defined]
        return Size(value, first.fixed and second.fixed)
