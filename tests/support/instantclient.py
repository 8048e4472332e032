"""ZIPs of Instant Client's shape, made of small real shared objects, for the tests and the benchmark."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

from support.helpers import ROOT, UNUSED

COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


class Layout(NamedTuple):
    """The content of one release's Basic Lite. needed: library -> the libraries that it needs beside libc."""

    version: str
    soname: str
    readme: str
    needed: dict[str, tuple[str, ...]]
    links: dict[str, str]
    licence: str = ""


AIO, NSL = "libaio.so.1", "libnsl.so.1"
L12 = Layout(
    "12.1",
    "libclntsh.so.12.1",
    "12.1.0.2.0",
    {
        "libnnz12.so": (),
        "libons.so": (),
        "libclntshcore.so.12.1": (AIO,),
        "libmql1.so": (),
        "libipc1.so": (),
        "libclntsh.so.12.1": (
            "libmql1.so",
            "libipc1.so",
            "libnnz12.so",
            "libons.so",
            NSL,
            AIO,
            "libclntshcore.so.12.1",
        ),
        "libociicus.so": ("libclntsh.so.12.1",),
        "libocci.so.12.1": ("libclntsh.so.12.1", "libstdc++.so.6"),
        "libocijdbc12.so": ("libclntsh.so.12.1",),
    },
    {},
)
L19 = Layout(
    "19",
    "libclntsh.so.19.1",
    "19.28.0.0.0",
    {
        "libnnz19.so": (),
        "libclntshcore.so.19.1": (AIO,),
        "libmql1.so": (),
        "libipc1.so": ("libmql1.so",),
        "libclntsh.so.19.1": ("libnnz19.so", NSL, AIO, "libclntshcore.so.19.1"),
        "libociicus.so": ("libclntsh.so.19.1",),
        "libocci.so.19.1": ("libclntsh.so.19.1", "libstdc++.so.6"),
        "libocijdbc19.so": ("libclntsh.so.19.1",),
        "liboramysql19.so": ("libclntsh.so.19.1",),
    },
    {f"libclntsh.so{end}": "libclntsh.so.19.1" for end in ("", ".10.1", ".11.1", ".12.1", ".18.1")}
    | {"libocci.so": "libocci.so.19.1", "libclntshcore.so": "libclntshcore.so.19.1"},
    "BASIC_LITE_LICENSE",
)
L21 = Layout(
    "21",
    "libclntsh.so.21.1",
    "21.13.0.0.0",
    {
        "libnnz21.so": (),
        "libclntshcore.so.21.1": (AIO,),
        "libclntsh.so.21.1": ("libnnz21.so", AIO, "libclntshcore.so.21.1"),
        "libociicus.so": ("libclntsh.so.21.1",),
        "libocijdbc21.so": ("libclntsh.so.21.1",),
    },
    {f"libclntsh.so{end}": "libclntsh.so.21.1" for end in ("", ".19.1")},
    "BASIC_LITE_LICENSE",
)
LAYOUTS = {one.version: one for one in (L12, L19, L21)}
# Prints the libraries that the loader has opened, in a process whose only other libraries are the system's.
LOAD = """
import ctypes, os, sys
ctypes.CDLL("libclntsh.so", os.RTLD_NOW)
for name in sys.argv[1:]:
    ctypes.CDLL(name, os.RTLD_NOW)
print(*{line.split()[-1] for line in open("/proc/self/maps") if ".so" in line})
"""
# The driver's calls of OCI when it starts and for a connect, which finds no listener. As with Oracle's OCI, the
# environment needs the data library, which is opened by name, and the file of libclntsh that has the version in its
# name: without them the error is ORA-01804.
OCI = """
#include <stddef.h>
#include <stdio.h>
extern void *dlopen(const char *, int);
/* The old version, which every runtime has. */
__asm__(".symver dlopen,dlopen@GLIBC_2.2.5");
static char handle[4096];
void OCIClientVersion(int *a, int *b, int *c, int *d, int *e) {{ *a = {0}; *b = {1}; *c = {2}; *d = {3}; *e = {4}; }}
int OCIThreadProcessInit(void) {{ return 0; }}
int OCIEnvNlsCreate(void **env) {{
  *env = handle;
  return dlopen("libociicus.so", 2) && dlopen("{5}", 2) ? 0 : -1;
}}
int OCIHandleAlloc(void *env, void **out) {{ *out = handle; return 0; }}
int OCIHandleFree(void) {{ return 0; }}
int OCIThreadKeyInit(void *env, void *err, void **key) {{ *key = handle; return 0; }}
static void *kept;
int OCIThreadKeyGet(void *env, void *err, void *key, void **value) {{ *value = kept; return 0; }}
int OCIThreadKeySet(void *env, void *err, void *key, void *value) {{ kept = value; return 0; }}
int OCIAttrGet(void *handle, int type, unsigned short *value) {{ *value = 873; return 0; }}
int OCIAttrSet(void) {{ return 0; }}
int OCINlsNumericInfoGet(void *env, void *err, int *value, int item) {{ *value = 4; return 0; }}
static int attached;
int OCIServerAttach(void) {{ attached = 1; return -1; }}
int OCIErrorGet(void *handle, unsigned record, char *state, int *code, char *text, unsigned size) {{
  const char *words[] = {{"ORA-01804: failure to initialize timezone information", "ORA-12541: TNS:no listener"}};
  *code = attached ? 12541 : 1804;
  snprintf(text, size, "%s", words[attached]);
  return 0;
}}
int OCINlsCharSetNameToId(void) {{ return 873; }}
"""


def compile_library(target: Path, source: str, soname: str, needed: tuple[str, ...] = (), *words: str) -> None:
    """Compile a shared object with these DT_NEEDED entries, each of which must lie beside it."""
    linker = f"-Wl,-soname,{soname},--no-as-needed,--allow-shlib-undefined,--build-id=none,-rpath-link,{target.parent}"
    command = [COMPILER, "-shared", "-fPIC", "-o", target.name, "-x", "c", "-", linker, "-L.", *words]
    subprocess.run(
        [*command, "-x", "none", *(f"-l:{name}" for name in needed), "-ldl"],
        cwd=target.parent,
        input=source,
        text=True,
        check=True,
    )


def word(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def source_of(layout: Layout, name: str) -> str:
    """Return the C source of a function with the library's name; it calls those of the libraries that it needs."""
    calls = ["io_setup"] if AIO in layout.needed[name] else []
    calls += [f"f_{word(one)}" for one in layout.needed[name] if one in layout.needed]
    text = "".join(f"int {call}();\n" for call in calls)
    text += f"int f_{word(name)}() {{ return 1{''.join(f' + {call}()' for call in calls)}; }}\n"
    if name == layout.soname:
        numbers = (layout.readme.split(".") + ["0"] * 5)[:5]
        text += OCI.format(*numbers, layout.soname)
    return text


def make_folder(layout: Layout, folder: Path) -> Path:
    """Compile a layout; returns the folder of the client. A libaio lies in folder/system."""
    client = folder / f"instantclient_{layout.version.replace('.', '_')}"
    client.mkdir(parents=True)
    system = folder / "system"
    system.mkdir()
    compile_library(system / AIO, "int io_setup() { return 7; }\n", AIO)
    compile_library(system / NSL, "int yp_get_default_domain() { return 0; }\n", NSL)
    for stub in ("libstdc++.so.6",):
        compile_library(system / stub, "int stub;\n", stub)
    for library in system.iterdir():
        shutil.copy(library, client)
    for name, needed in layout.needed.items():
        compile_library(client / name, source_of(layout, name), name, needed)
    for library in system.iterdir():
        (client / library.name).unlink()
    subprocess.run(
        [COMPILER, "-x", "c", "-", "-o", "genezi"], input="int main() { return 0; }", text=True, cwd=client, check=True
    )
    for jar in ("ojdbc8.jar", "xstreams.jar", "ucp.jar"):
        (client / jar).write_bytes(b"PK\x03\x04 not a library" * 100)
    readme = f"Basic Lite Package Information\n\nClient Shared Library 64-bit - {layout.readme}\n"
    (client / "BASIC_LITE_README").write_text(readme)
    if layout.licence:
        (client / layout.licence).write_text("Oracle Free Use Terms and Conditions\n")
    for name, target in layout.links.items():
        (client / name).symlink_to(target)
    return client


def zip_folder(client: Path, target: Path) -> Path:
    """Pack a folder as Oracle does: links as links, modes, one folder."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\n")
        for place in sorted(client.iterdir()):
            name = f"{client.name}/{place.name}"
            if place.is_symlink():
                add_link(archive, name, str(place.readlink()))
            else:
                archive.write(place, name)
    return target


def add_link(archive: zipfile.ZipFile, name: str, target: str) -> None:
    entry = zipfile.ZipInfo(name)
    entry.create_system = 3
    entry.external_attr = 0o120777 << 16
    archive.writestr(entry, target)


def make_zip(layout: Layout, folder: Path) -> Path:
    name = f"instantclient-basiclite-linux.x64-{layout.readme}.zip"
    return zip_folder(make_folder(layout, folder), folder / name)


def unzip(layer: Path, folder: Path) -> Path:
    """Unpack a ZIP as Lambda does: links are links."""
    with zipfile.ZipFile(layer) as archive:
        for entry in archive.infolist():
            place = folder / entry.filename
            place.parent.mkdir(parents=True, exist_ok=True)
            mode = entry.external_attr >> 16
            if stat.S_ISLNK(mode):
                place.symlink_to(archive.read(entry).decode())
            else:
                place.write_bytes(archive.read(entry))
                place.chmod(mode & 0o777)
    return folder


def run_with(lib: Path, code: str, *words: str) -> subprocess.CompletedProcess:
    """Run a fresh process with the layer's lib/ as its library path, as Lambda starts one."""
    environ = {"LD_LIBRARY_PATH": str(lib), "PATH": os.environ["PATH"]}
    return subprocess.run([sys.executable, "-c", code, *words], env=environ, capture_output=True, text=True, timeout=60)


def check_loads(lib: Path, data: str) -> None:
    done = run_with(lib, LOAD, data)
    assert done.returncode == 0, done.stderr
    # All that is not the system's own comes from the layer: no other folder was asked.
    opened = {Path(one) for one in done.stdout.split()}
    from_layer = {one.name for one in opened if one.parent == lib}
    names = {place.name for place in lib.iterdir() if not place.is_symlink()}
    assert {data, *(name for name in names if name.startswith("libclntsh"))} <= from_layer
    assert not {one for one in opened if one.name in names and one.parent != lib}


CHECK = "import json; from handler import oracle; print(json.dumps(oracle.check_client()))"


def check_client(lib: Path | None) -> tuple[dict, str]:
    """Return how the handler's own modules reach Oracle in a fresh process with that library path, and their log."""
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "ORACLE_CLIENT": "thick", **UNUSED}
    if lib:
        environ["LD_LIBRARY_PATH"] = str(lib)
    done = subprocess.run([sys.executable, "-c", CHECK], env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr
