#!/usr/bin/env bash
# Install packages into .venv, which is made if it is missing or was made elsewhere.
# Usage: ops/venv.sh install MARKER FILE...   install what the first FILE lists and nothing else, then write the text of
#                                             all FILEs to MARKER; on failure the packages stay as they were
#        ops/venv.sh sound                    exit 1 if .venv is missing, was moved, or its Python is gone
#        ops/venv.sh check                    the same, or stale: one line that names the cause; changes nothing
# Needs: python3 (3.10 or later) with venv; PYTHON names another interpreter.
set -euo pipefail

# The folder and the interpreter that .venv was made for: its scripts name both by their path.
made_for() { echo "$(realpath .venv) $(realpath .venv/bin/python)"; }

sound() { [ -x .venv/bin/python ] && [ "$(cat .venv/made-for 2> /dev/null)" = "$(made_for)" ]; }

fail() {
  echo "$1" >&2
  exit 1
}

check() {
  local fix="run \`make -C $PWD .venv/ready\`, then try again"
  [ -f .venv/ready ] || fail "$PWD has no installed packages in .venv; $fix."
  sound || fail "$PWD/.venv was made for another folder or Python; $fix."
  cmp -s requirements.txt .venv/ready || fail "$PWD/.venv has other packages than requirements.txt lists; $fix."
}

make_venv() {
  local python=${PYTHON:-python3}
  command -v "$python" > /dev/null ||
    fail "$python: not found; install Python 3.10 or later, or name one: make PYTHON=/path/to/python3"
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail "$("$python" --version) is too old; name Python 3.10 or later: make PYTHON=/path/to/python3"
  "$python" -c 'import ensurepip, venv' 2> /dev/null ||
    fail "$("$python" --version) has no venv; install it, on Debian and Ubuntu: apt-get install python3-venv"
  echo "setup     making .venv with $("$python" --version) (once)"
  rm -rf .venv
  "$python" -m venv .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check "$(sed -n 's/^uv==/uv==/p' requirements.txt)"
  made_for > .venv/made-for
}

install() {
  local marker=$1 file=$2
  shift
  # Git sets new times on files that did not change.
  if sound && cat "$@" | cmp -s - "$marker"; then
    touch "$marker"
    return
  fi
  sound || make_venv
  echo "setup     installing the packages of $file"
  # requirements.txt alone ends the environment of requirements-dev.txt.
  [ "$marker" != .venv/ready ] || rm -f .venv/ready-dev
  .venv/bin/uv pip install --quiet --exact --compile-bytecode --python .venv/bin/python -r "$file"
  cat "$@" > "$marker"
}

case "${1:-}" in
  install) install "${@:2}" ;;
  sound) sound ;;
  check) check ;;
  *) fail "usage: ops/venv.sh install MARKER FILE... | sound | check" ;;
esac
