#!/usr/bin/env bash
# Install packages into .venv, which is made if it is missing or was made elsewhere.
# Usage: ops/venv.sh install MARKER FILE...   install what the first FILE lists and nothing else, then write the text of
#                                             all FILEs to MARKER; on failure the packages stay as they were
#        ops/venv.sh sound                    exit 1 if .venv is missing, was moved, or its Python or our inv is gone
#        ops/venv.sh check                    the same, or stale: one line that names the cause; changes nothing
# Needs: python3 (3.10 to 3.14) with venv; PYTHON names another interpreter.
set -euo pipefail
unset PYTHONHOME PYTHONPATH PYTHONSAFEPATH

# The folder and the interpreter that .venv was made for: its scripts name both by their path.
made_for() { echo "$(realpath .venv) $(realpath .venv/bin/python)"; }

is_ours() { [ -x .venv/bin/python ] && [ "$(cat .venv/made-for 2> /dev/null)" = "$(made_for)" ]; }

# The program `inv`, which runs ops/inv.py.
program() {
  cat << EOF
#!/bin/sh
# Made by ops/venv.sh.
if [ -x "$PWD/.venv/bin/python" ] && [ -f "$PWD/ops/inv.py" ]; then
  exec "$PWD/.venv/bin/python" -I "$PWD/ops/inv.py" "\$@"
fi
echo "\$0 was made for $PWD, which has no .venv/bin/python now; run \\\`make .venv/ready\\\` in the checkout." >&2
exit 1
EOF
}

make_program() {
  local name
  for name in inv invoke; do
    # Replaced in one step, because another shell may start it meanwhile.
    program > ".venv/bin/$name.new"
    chmod +x ".venv/bin/$name.new"
    mv ".venv/bin/$name.new" ".venv/bin/$name"
  done
}

sound() { is_ours && grep -qs ops/inv.py .venv/bin/inv; }

fail() {
  echo "$1" >&2
  exit 1
}

check() {
  local fix="run \`make -C $PWD .venv/ready\`, then try again"
  [ -f .venv/ready ] || fail "$PWD has no installed packages in .venv; $fix."
  is_ours || fail "$PWD/.venv was made for another folder or Python; $fix."
  cmp -s requirements.txt .venv/ready || fail "$PWD/.venv has other packages than requirements.txt lists; $fix."
}

make_venv() {
  # initdb, the AWS CLI and PATH would misread these characters.
  case $PWD in
    *[\$\`\"\\:]*) fail "$PWD has one of \$ \` \" \\ : in its name, with which programs do not start; rename it." ;;
  esac
  local python=${PYTHON:-python3}
  command -v "$python" > /dev/null ||
    fail "$python: not found; install Python 3.10 to 3.14, or name one: make PYTHON=/path/to/python3"
  "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))' ||
    fail "$("$python" --version 2>&1) cannot run this; name Python 3.10 to 3.14: make PYTHON=/path/to/python3"
  "$python" -c 'import ensurepip, venv' 2> /dev/null ||
    fail "$("$python" --version) has no venv; install it, on Debian and Ubuntu: apt-get install python3-venv"
  echo "setup     making .venv with $("$python" --version) (once)"
  if ! { rm -rf .venv && "$python" -m venv .venv; } > /dev/null 2>&1; then
    fail "$PWD/.venv could not be made; give this user the folder, and the disk 2 GB of free space, then try again."
  fi
  .venv/bin/python -m ops.installer --version > /dev/null
  made_for > .venv/made-for
}

install() {
  local marker=$1 file=$2
  shift
  # Another `make` may do this now: this one waits, and then has nothing to do. macOS has no flock.
  if command -v flock > /dev/null; then
    if ! { mkdir -p .local && true > .local/venv.lock; } 2> /dev/null; then
      fail "$PWD/.local could not be written; give this user the folder, and the disk 2 GB of free space, then try again."
    fi
    exec 9> .local/venv.lock
    flock 9
  fi
  # Git sets new times on files that did not change.
  if sound && cat "$@" | cmp -s - "$marker"; then
    touch "$marker"
    return
  fi
  is_ours || make_venv
  echo "setup     installing the packages of $file"
  # requirements.txt alone ends the environment of requirements-dev.txt.
  [ "$marker" != .venv/ready ] || rm -f .venv/ready-dev
  .venv/bin/python -m ops.installer pip install --quiet --exact --compile-bytecode --python .venv/bin/python -r "$file"
  make_program
  cat "$@" > "$marker"
}

case "${1:-}" in
  install) install "${@:2}" ;;
  sound) sound ;;
  check) check ;;
  *) fail "usage: ops/venv.sh install MARKER FILE... | sound | check" ;;
esac
