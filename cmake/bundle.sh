#!/usr/bin/env bash
# Puts what tests/gpu.sh needs beside CUDA into one folder, to take to a machine without a network: bash cmake/bundle.sh FOLDER.
# FOLDER gets include/doctest, from LORAPP_BUNDLE_FROM/include or this machine's own; tests/gpu.sh reads it as LORAPP_BUNDLE.
set -euo pipefail
[ $# = 1 ] || { echo "bundle: usage: bash cmake/bundle.sh FOLDER" >&2; exit 2; }
folder=$1
if [ -e "$folder" ] && [ -n "$(ls -A "$folder" 2>/dev/null)" ]; then
  echo "bundle: $folder is there and not empty" >&2
  exit 1
fi
for from in ${LORAPP_BUNDLE_FROM:+"$LORAPP_BUNDLE_FROM"} /usr/local /usr; do
  [ -f "$from/include/doctest/doctest.h" ] || continue
  mkdir -p "$folder/include/doctest"
  cp "$from/include/doctest/doctest.h" "$folder/include/doctest/"
  echo "$folder: doctest from $from/include"
  exit 0
done
echo "bundle: doctest/doctest.h was not found in ${LORAPP_BUNDLE_FROM:+$LORAPP_BUNDLE_FROM/include, }/usr/local/include or /usr/include; Debian has it in doctest-dev" >&2
exit 1
