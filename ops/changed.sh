#!/usr/bin/env bash
# Write a text to a file unless the file has it already: make then sees by the file's time whether the text changed.
# Usage: ops/changed.sh FILE TEXT
set -euo pipefail

mkdir -p "$(dirname "$1")"
if [ ! -f "$1" ] || [ "$(cat "$1")" != "$2" ]; then
  printf '%s\n' "$2" > "$1"
fi
