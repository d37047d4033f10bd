"""Checks of arguments: numbers in their range, what can be gone through, what can be called."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TypeGuard

from voice2face.errors import SettingError


def check_whole(name: str, value: object, most: int) -> int:
    """Refuse what is no whole number from 1 to ``most``, and return the others as Python's.

    Raises:
        SettingError: says which argument, and its range.
    """
    if not is_whole(value) or not 1 <= value <= most:
        raise SettingError(f"{name} is 1 to {most}, not {value!r}")
    return int(value)


def check_number(name: str, value: object, most: float) -> float:
    """Refuse what is no number from 0 to ``most``, and return the others as Python's.

    Raises:
        SettingError: says which argument, and its range.
    """
    if not isinstance(value, Real) or isinstance(value, bool) or value < 0 or not value <= most:
        raise SettingError(f"{name} is 0 to {most:g}, not {value!r}")
    return float(value)


def check_callable(name: str, given: object) -> None:
    """Refuse what cannot be called.

    Raises:
        SettingError: says which argument.
    """
    if not callable(given):
        raise SettingError(f"{name} is a function, which each step calls")


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is an integer, of Python or NumPy; booleans are not."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_several(given: object) -> bool:
    """Whether it can be gone through; arrays and tensors of a single number cannot."""
    if isinstance(given, str | bytes):
        return False
    try:
        iter(given)  # type: ignore[call-overload]
    except TypeError:
        return False
    return True
