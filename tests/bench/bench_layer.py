"""How long a layer takes from a ZIP of Basic Lite's size, and how much memory: `inv bench --only layer`.

Its libraries are small ones, followed by 110 MB of data that compress as badly as machine code. Prints one JSON line;
the bounds are 60 seconds and 200 MB.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from support import instantclient

# The data of Oracle's 19 Basic Lite, in MB.
SIZES = {"libclntsh.so.19.1": 80, "libclntshcore.so.19.1": 8, "libnnz19.so": 6, "libociicus.so": 13, "ojdbc8.jar": 4}
MB = 1 << 20
BUILD = """
import sys
from pathlib import Path
from layer import build
build.build(sys.argv[1], "python3.13", False, Path(sys.argv[2]))
"""


def pad(library: Path, megabytes: int) -> None:
    """Return bytes of which about a half can be compressed, as of a program's."""
    draw = random.Random(megabytes)
    with library.open("ab") as file:
        for _ in range(megabytes):
            block = draw.randbytes(1 << 14)
            file.write((block + bytes(1 << 14)) * (MB >> 15))


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        client = instantclient.make_folder(instantclient.L19, base)
        for library, megabytes in SIZES.items():
            pad(client / library, megabytes)
        zipped = instantclient.zip_folder(client, base / "client.zip")
        environ = {**os.environ, "LIBAIO": str(base / "system" / instantclient.AIO)}
        begin = time.monotonic()
        words = [sys.executable, "-c", BUILD, str(zipped), str(base / "build" / "layer.zip")]
        subprocess.run(words, env=environ, check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - begin
        # The compiler's processes are small: the largest child is the build.
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(
            json.dumps(
                {
                    "bench": "layer",
                    "unzipped_mb": sum(SIZES.values()),
                    "seconds": round(seconds, 1),
                    "memory_mb": round(memory),
                    "held": seconds < 60 and memory < 200,
                }
            )
        )


if __name__ == "__main__":
    main()
