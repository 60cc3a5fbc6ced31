"""Darknet's ``.cfg`` files: sections of options, read as Darknet reads them, but with errors for what it lets pass."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fastcv._files import replaced_file

__all__ = ["DarknetConfig", "Section", "make_config", "parse_config", "read_config", "write_config"]

_INTEGER = re.compile(r"[+-]?[0-9]{1,9}", re.ASCII)
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?", re.ASCII)
_WHITE = str.maketrans("", "", " \t\r\n")  # Darknet removes it everywhere in a line
_ALIASES = {"network": "net", "conv": "convolutional", "conn": "connected", "max": "maxpool", "avg": "avgpool"}

# The sections of Darknet's parser. Which of them a network can have is said in layers.py.
_SECTIONS = {
    "Gaussian_yolo", "activation", "avgpool", "batchnorm", "connected", "contrastive", "conv_lstm",
    "convolutional", "cost", "crnn", "crop", "deconvolutional", "detection", "dropout", "empty", "gru",
    "implicit_add", "implicit_mul", "iseg", "l2norm", "local", "local_avgpool", "logistic", "lstm", "maxpool",
    "net", "normalization", "region", "reorg", "reorg3d", "rnn", "route", "sam", "scale_channels", "shortcut",
    "silence", "softmax", "upsample", "yolo",
}  # fmt: skip


@dataclass(frozen=True)
class Section:
    """One section: its name without brackets, its options as text, and where it stands.

    The methods read an option as a number, or return the default where there is none. They raise ValueError, in one
    line with file, line and section, for a value that is no number or is out of range.
    """

    name: str
    options: Mapping[str, str]
    file: str = "the config"
    line: int = 0
    lines: Mapping[str, int] = field(default_factory=dict)

    def error(self, message: str, option: str | None = None) -> ValueError:
        """Return the error that names this section, and the line of an option."""
        line = self.lines.get(option, self.line) if option else self.line
        return ValueError(f"{self.file}, line {line}, [{self.name}]: {message}")

    def text(self, option: str, default: str) -> str:
        """Return an option as it stands."""
        return self.options.get(option, default)

    def integer(self, option: str, default: int, least: int = 0, most: int = 1 << 16) -> int:
        """Return an option that is an integer from ``least`` to ``most``."""
        text = self.options.get(option)
        value = default if text is None else self._integer(option, text)
        if not least <= value <= most:
            raise self.error(f"{option} must be from {least} to {most}, got {value}", option)
        return value

    def number(self, option: str, default: float) -> float:
        """Return an option that is a finite number."""
        text = self.options.get(option)
        return default if text is None else self._number(option, text)

    def integers(self, option: str) -> list[int] | None:
        """Return an option that is a list of integers, or None."""
        text = self.options.get(option)
        return None if text is None else [self._integer(option, item) for item in text.split(",")]

    def numbers(self, option: str) -> list[float] | None:
        """Return an option that is a list of finite numbers, or None."""
        text = self.options.get(option)
        return None if text is None else [self._number(option, item) for item in text.split(",")]

    def refuse(self, *options: str) -> None:
        """Raise ValueError where one of these options is given and not 0: it would change the result."""
        for option in options:
            if self.number(option, 0) != 0:
                raise self.error(f"{option} is not supported, got {self.options[option]}", option)

    def _integer(self, option: str, text: str) -> int:
        if not _INTEGER.fullmatch(text):
            raise self.error(f"{option} must be an integer, got {_shown(text)}", option)
        return int(text)

    def _number(self, option: str, text: str) -> float:
        value = float(text) if _NUMBER.fullmatch(text) else math.nan
        if not math.isfinite(value):
            raise self.error(f"{option} must be a number, got {_shown(text)}", option)
        return value


@dataclass(frozen=True)
class DarknetConfig:
    """A parsed ``.cfg``: its sections, of which the first is [net], and the text they came from, which is written."""

    text: str
    sections: tuple[Section, ...]
    file: str = "the config"

    @property
    def net(self) -> Section:
        """The section [net]: size of the input, and the settings of training."""
        return self.sections[0]


def parse_config(text: str, file: str = "the config") -> DarknetConfig:
    """Return the sections of a text.

    Lines are ``[section]``, ``option=value``, empty, or comments that start with ``#`` or ``;``. Whitespace means
    nothing. Of an option that is given twice the first counts, as in Darknet.

    Parameters
    ----------
    text : str
        The text of a ``.cfg`` file.
    file : str
        Its name in errors.

    Raises
    ------
    ValueError
        For any other line, a section that Darknet does not have, or a text that does not start with [net]. One line,
        with file, line and section.
    """
    if not isinstance(text, str):
        raise TypeError(f"text must be a str, got {type(text).__name__}")
    sections: list[Section] = []
    options: dict[str, str] = {}
    lines: dict[str, int] = {}
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.translate(_WHITE)
        if not line or line[0] in "#;\0":
            continue
        if line[0] == "[":
            options, lines = {}, {}
            sections.append(Section(_section_name(line, file, number), options, file, number, lines))
            if (sections[0].name == "net") != (len(sections) == 1 or sections[-1].name != "net"):
                raise sections[-1].error("the first section must be [net], and no other")
        elif not sections:
            raise ValueError(f"{file}, line {number}: a section such as [net] must come first, got {_shown(line)}")
        else:
            option, equals, value = line.partition("=")
            if not equals or not option or not value:
                raise ValueError(
                    f"{file}, line {number}, [{sections[-1].name}]: must be option=value, got {_shown(line)}"
                )
            options.setdefault(option, value)
            lines.setdefault(option, number)
    if not sections:
        raise ValueError(f"{file}, line 1: must hold the section [net], got no section")
    return DarknetConfig(text, tuple(sections), file)


def make_config(sections: Iterable[tuple[str, Mapping[str, object]]]) -> DarknetConfig:
    """Return the configuration of sections given as names and options, written out in Darknet's form."""
    blocks = []
    for name, options in sections:
        blocks.append("".join([f"[{name}]\n", *(f"{option}={value}\n" for option, value in options.items())]))
    return parse_config("\n".join(blocks))


def read_config(path: str | Path) -> DarknetConfig:
    """Read a ``.cfg`` file.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        As :func:`parse_config` does.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no config {path}")
    return parse_config(path.read_bytes().decode("utf-8", "surrogateescape"), str(path))  # any byte may be in a comment


def write_config(path: str | Path, config: DarknetConfig) -> None:
    """Write a ``.cfg`` file, completely or not at all. One that was read is written with the same bytes."""
    with replaced_file(path) as file:
        file.write_bytes(config.text.encode("utf-8", "surrogateescape"))


def _section_name(line: str, file: str, number: int) -> str:
    name = line[1:-1]
    if line[-1] != "]" or _ALIASES.get(name, name) not in _SECTIONS:
        raise ValueError(f"{file}, line {number}: must be a section of Darknet, got {_shown(line)}")
    return _ALIASES.get(name, name)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
