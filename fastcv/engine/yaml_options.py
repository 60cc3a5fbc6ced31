"""Options as dataclasses: checked, and read from and written to YAML."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import math
import types
from os import PathLike
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from fastcv._files import replaced_file

__all__ = ["OptionError", "Options", "read_values"]


class OptionError(ValueError):
    """An option with a wrong name or value."""


@dataclasses.dataclass(kw_only=True)
class Options:
    """Dataclasses whose fields are options. To be subclassed; fields are of plain types, lists and dictionaries."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for entry in dataclasses.fields(self):
            setattr(self, entry.name, _checked(entry.name, hints[entry.name], getattr(self, entry.name)))

    @classmethod
    def from_dict(cls, values: Any, source: str = "options") -> Any:
        """Return the options of these names and values; others have their defaults."""
        if not isinstance(values, dict):
            raise OptionError(f"{source} must hold options, one a line as 'name: value', got {_kind(values)}")
        known = [entry.name for entry in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                raise OptionError(f"{source}: there is no option {name!r}{_suggestion(str(name), known)}")
        try:
            return cls(**values)
        except OptionError as error:
            raise OptionError(f"{source}: {error}") from None

    @classmethod
    def read_yaml(cls, path: str | PathLike[str]) -> Any:
        """Read options from a YAML file."""
        return cls.from_dict(read_values(path), str(path))

    def write_yaml(self, path: str | PathLike[str]) -> None:
        """Write all options to a YAML file, those of the class itself before those that it inherits."""
        values = dataclasses.asdict(self)
        ordered = {name: values[name] for name in inspect.get_annotations(type(self)) if name in values}
        text = _yaml(path).safe_dump(ordered | values, sort_keys=False, allow_unicode=True)
        with replaced_file(path) as file:
            file.write_text(text, encoding="utf-8")


def read_values(path: str | PathLike[str]) -> Any:
    """Return what a YAML file holds, unchecked: those options alone that it names."""
    yaml = _yaml(path)
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise OptionError(f"there is no file {path}") from None
    except UnicodeDecodeError:
        raise OptionError(f"{path} is not a text file") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise OptionError(f"{path}{where}: not YAML: {getattr(error, 'problem', None) or error}") from None
    return {} if values is None else values


def _yaml(path: str | PathLike[str]) -> Any:
    try:
        import yaml  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        raise ImportError(f"{path} needs pyyaml: pip install pyyaml") from None
    return yaml


def _checked(name: str, hint: Any, value: Any) -> Any:
    """Return the value in the type of the hint, or raise OptionError."""
    if hint is Any:
        return value
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return None if value is None else _checked(name, next(p for p in parts if p is not type(None)), value)
    if origin is list and isinstance(value, list | tuple):
        return [_checked(f"{name}[{index}]", parts[0], item) for index, item in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        return {_checked(name, parts[0], k): _checked(f"{name}: {k}", parts[1], v) for k, v in value.items()}
    if hint is float and isinstance(value, str):  # YAML reads 1e-3 as text
        with contextlib.suppress(ValueError):
            value = float(value)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if math.isnan(value):
            raise OptionError(f"{name} must be a number, got nan")
        return float(value)
    if hint in (int, bool, str) and type(value) is hint:
        return value
    wanted = {int: "an integer", float: "a number", bool: "true or false", str: "text"}.get(hint)
    raise OptionError(f"{name} must be {wanted or f'a {origin.__name__}'}, got {_kind(value)}")


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "nothing" if value is None else f"{type(value).__name__} {value!r}"


def _suggestion(name: str, known: list[str]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, known, 1)
    return f"; did you mean {close[0]!r}?" if close else ""
