"""Read a file of NAME=value lines strictly: a value that dotenv would silently cut or change is a fault."""

from __future__ import annotations

import codecs
import io
from pathlib import Path
from typing import NamedTuple

from dotenv.parser import Binding, parse_stream


class EnvFile(NamedTuple):
    """values: name -> text as it is written, references included; lines: name -> its line; faults: one text each."""

    values: dict[str, str]
    lines: dict[str, int]
    faults: list[str]


def read(path: Path) -> EnvFile:
    """Return a file's values and faults; a file that is not UTF-8 text has no values. No fault contains a value."""
    values: dict[str, str] = {}
    lines: dict[str, int] = {}
    try:
        text = decoded(path.read_bytes())
    except OSError as error:
        return EnvFile({}, {}, [f"it cannot be read: {error.strerror}"])
    except ValueError as error:
        return EnvFile({}, {}, [str(error)])
    faults = []
    for binding in parse_stream(io.StringIO(text)):
        number, fault = line_of(binding), fault_of(binding)
        if fault:
            faults.append(f"line {number}: {fault}")
        if binding.key and not fault:
            if binding.key in values:
                faults.append(f"line {number}: {binding.key} is there twice, first on line {lines[binding.key]}")
            values[binding.key], lines[binding.key] = binding.value or "", number
    return EnvFile(values, lines, faults)


def decoded(content: bytes) -> str:
    """Return a file's text; raises ValueError with the cause if it is not UTF-8."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in content:
        raise ValueError("it is UTF-16 or no text; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = content[: error.start].count(b"\n") + 1
        raise ValueError(f"line {number}: it is not UTF-8, perhaps Windows-1252; save the file as UTF-8") from None


def line_of(binding: Binding) -> int:
    """Return the line of a name; dotenv counts the empty lines before it as part of it."""
    text = binding.original.string
    return binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")


def fault_of(binding: Binding) -> str:
    """Return why a line would be read differently from its text, "" if it is read as written."""
    if binding.error:
        return "it is not NAME=value, or its quote does not end; quote a value that begins with a quote"
    if not binding.key:
        return ""
    if binding.value is None:
        return f"{binding.key} has no ="
    written = binding.original.string.partition("=")[2].strip()
    if written.startswith("#") or (written[:1] not in ("'", '"') and written != binding.value):
        return f"{binding.key} has a # that begins a comment; quote the value, or move the comment to a line of its own"
    return ""
