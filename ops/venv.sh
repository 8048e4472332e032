#!/usr/bin/env bash
# Make .venv with everything of requirements.txt, or leave it as it was.
# Usage: ops/venv.sh    Needs: python3 (3.10 or later) with venv; PYTHON names another interpreter.
set -euo pipefail

python=${PYTHON:-python3}
uv=$(sed -n 's/^uv==/uv==/p' requirements.txt)

command -v "$python" > /dev/null || {
  echo "$python: not found; install Python 3.10 or later, or name one: make PYTHON=/path/to/python3" >&2
  exit 1
}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
  echo "$("$python" --version) is too old; name Python 3.10 or later: make PYTHON=/path/to/python3" >&2
  exit 1
}
"$python" -c 'import ensurepip, venv' 2> /dev/null || {
  echo "$("$python" --version) has no venv; install it, on Debian and Ubuntu: apt-get install python3-venv" >&2
  exit 1
}

echo "setup     making .venv with $("$python" --version) (once)"
rm -rf .venv
"$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check "$uv"
echo "setup     installing the packages of requirements.txt"
.venv/bin/uv pip install --quiet --compile-bytecode --python .venv/bin/python -r requirements.txt
touch .venv/ready
