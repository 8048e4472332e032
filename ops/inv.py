"""The program `inv`: Invoke without a user's settings files. An error in loading the tasks is reported in one line.

`.venv/bin/inv`, which ops/venv.sh makes, runs this file by `python -I`, so PYTHONPATH has no effect. Imports nothing of
this checkout, because Invoke can find the tasks.py of another one.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[1]
REPAIR = f"run `make -C {ROOT} .venv/ready`, then try again"


def main() -> None:
    """Run the tasks of the command line."""
    # The tasks replace it by one that also writes a file, ops/entry.py.
    sys.excepthook = report
    for name in [name for name in os.environ if name.startswith("INVOKE_")]:
        del os.environ[name]
    try:
        from invoke import Config, Exit, Program, __version__
    except ImportError as error:
        sys.exit(f"{ROOT}/.venv has no Invoke that works ({error}); {REPAIR}.")

    class WithoutFiles(Config):
        """Invoke's settings without /etc/invoke.yaml and ~/.invoke.yaml, which could change what a command prints."""

        def load_base_conf_files(self) -> None:
            pass

    class Inv(Program):
        """Invoke with an error that names this checkout, if the current folder has no tasks."""

        def load_collection(self) -> None:
            try:
                super().load_collection()
            except Exit:
                raise Exit(f"No tasks.py in {os.getcwd()} or above it; run `cd {ROOT}`, then try again.") from None

    names = {"name": "Invoke", "binary": "inv[oke]", "binary_names": ["invoke", "inv"]}
    Inv(version=__version__, config_class=WithoutFiles, **names).run()


def report(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    """Print one line on an error: the place in our own code, or the package that does not work."""
    if issubclass(kind, KeyboardInterrupt):
        return
    cause = " ".join(f"{kind.__name__}: {error}".split())[:300]
    if isinstance(error, ModuleNotFoundError):
        fix = REPAIR
    else:
        frame = traceback.extract_tb(where)[-1]
        file, line = frame.filename, frame.lineno
        if isinstance(error, SyntaxError):
            file, line = error.filename, error.lineno
        fix = f"see {file}, line {line}; if you did not write this file, {REPAIR}"
    print(f"The tasks could not be loaded: {cause}; {fix}.", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
