#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Explores a Promela model exhaustively.
#
#   check.sh holds|fails MODEL [-DMACRO...]
#
# `holds`: Spin must find no error and must have explored all states. `fails`: it must find one,
# for a model that cannot fail shows nothing. Exit code 77 tells Meson that the test was skipped.
set -eu

expected=$1
model=$(realpath "$2")
shift 2

if ! command -v spin >/dev/null; then
    echo "skipped: spin is not installed (apt install spin)"
    exit 77
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

spin -a "$@" "$model"
${CC:-cc} -O2 -w -DSAFETY -o pan pan.c
./pan -m100000 >result.txt 2>&1 || true
cat result.txt

if grep -q 'max search depth too small\|out of memory\|Search not completed' result.txt &&
   [ "$expected" = holds ]; then
    echo "the search was not exhaustive"
    exit 1
fi
errors=$(sed -n 's/.*errors: \([0-9]*\).*/\1/p' result.txt)
case "$expected" in
holds) [ "$errors" = 0 ] ;;
fails) [ "$errors" -gt 0 ] ;;
*) echo "expected: holds or fails"; exit 2 ;;
esac
