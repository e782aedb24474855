"""JSON that we read, field by field: every value has the type and range it is used with, or a message names it.

    content = Fields.read(folder / "bundle.json", ModelError, "Copy the bundle again.")
    name, most = content.text("name"), content.whole("max_tokens", least=2)
    files = [(entry.text("path"), entry.text("sha256")) for entry in content.objects("files")]

Errors read `bundle.json, files[0].sha256: got null, expected text. Copy the bundle again.`
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, Self

from wyr_batch.checks.files import read_text, shown_path
from wyr_batch.errors import WyrError

_SHOWN_CHARACTERS = 60
_REQUIRED: Any = object()


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text. Raises: ValueError, for NaN and infinities as well, which JSON does not have."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant}, which is no number of JSON")

    def finite(number: str) -> float:
        return value if math.isfinite(value := float(number)) else refuse(number)

    try:
        return json.loads(text, parse_constant=refuse, parse_float=finite)
    except RecursionError:
        raise ValueError("values nested too deep") from None


class Fields:
    """One JSON object. Every getter takes a field's name; without a default the field has to be there.

    Attributes:
        content: the object as it was read.
        where: names the object in messages.
    """

    def __init__(
        self, content: Any, where: str, error: type[WyrError], advice: str = "", *, nested: bool = False
    ) -> None:
        """Raises: `error` if `content` is no object; `nested`: it is a value of another one."""
        self.where, self._error, self._advice, self._nested = where, error, advice, nested
        if not isinstance(content, dict):
            raise self._wrong(where, content, "an object")
        self.content: dict[str, Any] = content

    @classmethod
    def read(cls, path: Path, error: type[WyrError], advice: str = "") -> Self:
        """Read a file that holds one object. Raises: `error` naming the file, or the place in it."""
        text = read_text(path, error)
        try:
            content = parse_json(text)
        except ValueError as problem:
            raise error(shown_path(path), problem, "JSON", advice) from None
        return cls(content, shown_path(path), error, advice)

    def __contains__(self, name: str) -> bool:
        return name in self.content

    def text(self, name: str, default: str = _REQUIRED, *, one_of: tuple[str, ...] = ()) -> str:
        """Return a string; `one_of`: what it may be."""
        expected = f"one of {', '.join(one_of)}" if one_of else "text"
        value: str = self._take(name, default, expected, lambda v: isinstance(v, str) and (not one_of or v in one_of))
        return value

    def whole(self, name: str, default: int = _REQUIRED, *, least: int | None = None, most: int | None = None) -> int:
        """Return a whole number from `least` to `most`."""

        def fits(value: Any) -> bool:
            return isinstance(value, int) and not isinstance(value, bool) and _within(value, least, most)

        value: int = self._take(name, default, f"a whole number{_range(least, most)}", fits)
        return value

    def number(
        self, name: str, default: float = _REQUIRED, *, least: float | None = None, most: float | None = None
    ) -> float:
        """Return a finite number from `least` to `most`."""

        def fits(value: Any) -> bool:
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            return is_number and abs(value) <= sys.float_info.max and _within(value, least, most)

        return float(self._take(name, default, f"a number{_range(least, most)}", fits))

    def flag(self, name: str, default: bool = _REQUIRED) -> bool:
        """Return true or false."""
        value: bool = self._take(name, default, "true or false", lambda v: isinstance(v, bool))
        return value

    def texts(self, name: str, default: list[str] = _REQUIRED) -> list[str]:
        """Return a list of strings."""
        value: list[str] = self._take(name, default, "a list of texts", lambda v: _is_list_of(v, str))
        return value

    def wholes(self, name: str, default: list[int] = _REQUIRED) -> list[int]:
        """Return a list of whole numbers."""
        value: list[int] = self._take(name, default, "a list of whole numbers", lambda v: _is_list_of(v, int))
        return value

    def mapping(self, name: str, default: dict[str, Any] = _REQUIRED) -> dict[str, Any]:
        """Return an object whose values are shown or handed on, not computed with."""
        value: dict[str, Any] = self._take(name, default, "an object", lambda v: isinstance(v, dict))
        return value

    def object(self, name: str, default: dict[str, Any] = _REQUIRED) -> Fields:
        """Return an object's fields."""
        return self._nest(self.mapping(name, default), self._name(name))

    def objects(self, name: str, default: list[dict[str, Any]] = _REQUIRED) -> list[Fields]:
        """Return the fields of a list of objects."""
        items = self._take(name, default, "a list of objects", lambda v: _is_list_of(v, dict))
        return [self._nest(item, f"{self._name(name)}[{i}]") for i, item in enumerate(items)]

    def named_objects(self, name: str, default: dict[str, Any] = _REQUIRED) -> Iterator[tuple[str, Fields]]:
        """Yield key and fields of each value of an object of objects."""
        for key, value in self.mapping(name, default).items():
            yield key, self._nest(value, f"{self._name(name)}.{key}")

    def wrong(self, name: str, expected: str) -> WyrError:
        """Return the error to raise for a field whose value does not fit together with others."""
        return self._wrong(self._name(name), self.content.get(name), expected)

    def _nest(self, content: Any, where: str) -> Fields:
        return Fields(content, where, self._error, self._advice, nested=True)

    def _take(self, name: str, default: Any, expected: str, fits: Callable[[Any], bool]) -> Any:
        if name not in self.content:
            if default is _REQUIRED:
                raise self._error(self._name(name), "nothing", expected, self._advice)
            return default
        value = self.content[name]
        if not fits(value):
            raise self._wrong(self._name(name), value, expected)
        return value

    def _name(self, name: str) -> str:
        return f"{self.where}.{name}" if self._nested else f"{self.where}, {name}"

    def _wrong(self, name: str, value: Any, expected: str) -> WyrError:
        got = json.dumps(value, default=str)
        got = got if len(got) <= _SHOWN_CHARACTERS else got[: _SHOWN_CHARACTERS - 3] + "..."
        return self._error(name, got, expected, self._advice)


def _is_list_of(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) and not isinstance(item, bool) for item in value)


def _within(value: float, least: float | None, most: float | None) -> bool:
    return (least is None or value >= least) and (most is None or value <= most)


def _range(least: float | None, most: float | None) -> str:
    if least is None:
        return "" if most is None else f" of at most {most:g}"
    return f" of at least {least:g}" if most is None else f" from {least:g} to {most:g}"
