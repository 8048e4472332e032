"""Lambda's runtimes: the system libraries that a layer can rely on, and their glibc."""

from __future__ import annotations

import re

from invoke import Exit

# Amazon Linux 2023 under python3.12 and later, Amazon Linux 2 under 3.10 and 3.11.
GLIBC_2023, GLIBC_2 = (2, 34), (2, 26)
RUNTIMES = tuple(f"python3.{minor}" for minor in range(10, 15))
# glibc's own libraries and libgcc, which every runtime has. The layer brings libnsl.so.1 and libaio.so.1.
SYSTEM = frozenset(
    {
        "ld-linux-x86-64.so.2",
        "libc.so.6",
        "libdl.so.2",
        "libgcc_s.so.1",
        "libm.so.6",
        "libpthread.so.0",
        "libresolv.so.2",
        "librt.so.1",
        "libutil.so.1",
    }
)


def glibc_of(runtime: str) -> tuple[int, int]:
    """Return the newest glibc that a runtime provides symbols of."""
    return GLIBC_2023 if int(runtime.removeprefix("python3.")) >= 12 else GLIBC_2


def image_of(runtime: str) -> str:
    return f"public.ecr.aws/lambda/python:{runtime.removeprefix('python')}"


def check(runtime: str) -> str:
    if not re.fullmatch(r"python3\.[0-9]{1,2}", runtime) or int(runtime[8:]) < 10:
        raise Exit(f"layer: no runtime {runtime!r}. Known: {', '.join(RUNTIMES)}. Nothing was built.")
    return runtime


def glibc_version(version: str) -> tuple[int, ...] | None:
    """Return (2, 17) for GLIBC_2.17; None for a name that is not a glibc release, such as GLIBC_PRIVATE."""
    found = re.fullmatch(r"GLIBC_([0-9]+(?:\.[0-9]+)+)", version)
    return tuple(map(int, found[1].split("."))) if found else None


def compatible(newest: tuple[int, ...]) -> list[str]:
    """Return the runtimes whose glibc is at least this one."""
    return [runtime for runtime in RUNTIMES if glibc_of(runtime) >= newest]
