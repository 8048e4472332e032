"""Read what the dynamic loader needs of an ELF library, and make an empty library."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import NamedTuple

from invoke import Exit

MACHINE = "x86-64"
MACHINES = {"EM_X86_64": MACHINE, "EM_AARCH64": "arm64", "EM_386": "x86 (32 bits)", "EM_PPC64": "POWER"}
CHUNK = 1 << 20
# A library's name as a C string, as dlopen receives it.
NAMED = re.compile(rb"(?<![\w.+-])(lib[\w+-]{1,60}\.so(?:\.[0-9.]{1,12})?)\0")


class Elf(NamedTuple):
    """needed: library names; needs: {(library, version): symbols}; plain: undefined symbols without a version;
    provides: the versions that this library defines; loadable: a shared object, not a program."""

    name: str
    machine: str
    loadable: bool
    soname: str | None
    needed: tuple[str, ...]
    needs: dict[tuple[str, str], tuple[str, ...]]
    plain: frozenset[str]
    provides: frozenset[str]


def is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def read(path: Path) -> Elf:
    """Read one ELF file; raises Exit with its name if it is damaged."""
    # Imported here, because every task imports this module, and few read a library.
    from elftools.elf.elffile import ELFFile

    try:
        with path.open("rb") as file:
            return read_open(path.name, ELFFile(file))
    except Exit:
        raise
    except Exception as error:  # a parser of untrusted bytes may raise anything
        raise Exit(
            f"layer: {path.name} is a damaged ELF file ({type(error).__name__}: {error});"
            " download the ZIP from Oracle again. Nothing was built."
        ) from error


def read_open(name: str, elf) -> Elf:
    """Return what is needed of an ELFFile of pyelftools."""
    machine = MACHINES.get(elf["e_machine"], str(elf["e_machine"]))
    sections = list(elf.iter_sections())
    dynamic = section_of(sections, "SHT_DYNAMIC")
    if dynamic is None:
        segment = next((one for one in elf.iter_segments() if one["p_type"] == "PT_DYNAMIC"), None)
        tags = list(segment.iter_tags()) if segment else []
    else:
        tags = list(dynamic.iter_tags())
    if any(tag.entry.d_tag == "DT_VERNEED" for tag in tags) and dynamic is None:
        raise ValueError("its section headers were stripped, so its symbols cannot be checked")
    needs, plain = symbols_of(sections)
    return Elf(
        name,
        machine,
        elf["e_type"] == "ET_DYN" and not any(tag.entry.d_tag == "DT_FLAGS_1" and is_program(tag) for tag in tags),
        next((tag.soname for tag in tags if tag.entry.d_tag == "DT_SONAME"), None),
        tuple(tag.needed for tag in tags if tag.entry.d_tag == "DT_NEEDED"),
        needs,
        plain,
        frozenset(defined_versions(sections)),
    )


def section_of(sections, kind: str):
    return next((one for one in sections if one["sh_type"] == kind), None)


def is_program(tag) -> bool:
    """Return whether DF_1_PIE is set: a position-independent program, not a shared object."""
    return bool(tag["d_val"] & 0x08000000)


def defined_versions(sections) -> list[str]:
    found = section_of(sections, "SHT_GNU_verdef")
    return [aux.name for _, names in found.iter_versions() for aux in names][:100_000] if found else []


def symbols_of(sections) -> tuple[dict, frozenset[str]]:
    """Return ({(library, version): its symbols}, undefined symbols without a version)."""
    versions: dict[int, tuple[str, str]] = {}
    needed = section_of(sections, "SHT_GNU_verneed")
    if needed:
        for library, names in needed.iter_versions():
            for aux in names:
                versions[aux["vna_other"] & 0x7FFF] = (library.name, aux.name)
    table = section_of(sections, "SHT_DYNSYM")
    found: dict[tuple[str, str], list[str]] = {version: [] for version in versions.values()}
    plain = set()
    for index, symbol in undefined(table, sections):
        if index in versions:
            found[versions[index]].append(symbol)
        else:
            plain.add(symbol)
    return {version: tuple(sorted(names)) for version, names in found.items()}, frozenset(plain)


def undefined(table, sections):
    """Yield (version index, name) of each undefined symbol; by struct, because libclntsh has tens of thousands."""
    if table is None:
        return
    strings = sections[table["sh_link"]].data()
    versym = next((one.data() for one in sections if one["sh_type"] == "SHT_GNU_versym"), b"")
    # Elf64_Sym: name, info, other, section index, value, size; 32-bit files are refused for their machine anyway.
    if table["sh_entsize"] != 24:
        return
    for number, (name, info, _, section, _, _) in enumerate(struct.iter_unpack("<IBBHQQ", table.data())):
        # A weak symbol may stay undefined.
        if section == 0 and name and info >> 4 == 1:
            at = struct.unpack_from("<H", versym, 2 * number)[0] & 0x7FFF if versym else 1
            yield at, strings[name : strings.index(b"\0", name)].decode(errors="replace")


def named_in(path: Path) -> set[str]:
    """Return the names of libraries in a file's data, which it may open by name."""
    found, tail = set(), b""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            found |= {match.decode() for match in NAMED.findall(tail + chunk)}
            tail = chunk[-128:]
    return found


def empty_library(soname: str) -> bytes:
    """Return a shared object for x86-64 Linux with a name, no code, no symbols and no needs.

    It satisfies a library that names it in DT_NEEDED and uses no symbol of it. The loader requires an ELF
    header, one PT_LOAD segment over the whole file, and PT_DYNAMIC with a string table and an (empty) symbol table.
    """
    header, programs, tags = 64, 3 * 56, 7 * 16
    text = b"\0" + soname.encode() + b"\0"
    dynamic_at = header + programs
    symbols_at = dynamic_at + tags
    hash_at = symbols_at + 24
    text_at = hash_at + 16
    size = text_at + len(text)
    ident = b"\x7fELF" + bytes([2, 1, 1, 0]) + bytes(8)
    # ET_DYN, EM_X86_64, version 1, no entry point, program headers right behind, no section headers.
    elf = ident + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, header, 0, 0, header, 56, 3, 64, 0, 0)
    # type, flags, offset, address, physical address, size in the file, size in memory, alignment
    load = struct.pack("<IIQQQQQQ", 1, 6, 0, 0, 0, size, size, 0x1000)
    dynamic = struct.pack("<IIQQQQQQ", 2, 6, dynamic_at, dynamic_at, dynamic_at, tags, tags, 8)
    # PT_GNU_STACK without the execute flag: a file that has none asks for an executable stack.
    stack = struct.pack("<IIQQQQQQ", 0x6474E551, 6, 0, 0, 0, 0, 0, 16)
    # DT_SONAME, DT_HASH, DT_STRTAB, DT_SYMTAB, DT_STRSZ, DT_SYMENT, DT_NULL
    entries = [(14, 1), (4, hash_at), (5, text_at), (6, symbols_at), (10, len(text)), (11, 24), (0, 0)]
    # One bucket, one symbol: the null symbol that every table begins with.
    table = struct.pack("<IIII", 1, 1, 0, 0)
    return (
        elf + load + dynamic + stack + b"".join(struct.pack("<qQ", *one) for one in entries) + bytes(24) + table + text
    )
