#!/usr/bin/env bash
# The main job on the embedded default: builds what it needs, tunes a small model with QLoRA, shows what changed.
#   bash examples/quickstart.sh [OPTION…]        options of the quickstart program, e.g. --controls, --seed 2, --help
# BUILD_DIR names another build folder than build/. Everything it writes lies in the build folder.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
build=${BUILD_DIR:-$PWD/build}

bash cmake/setup.sh "$build"
. "$build/lorapp-env.sh"
cmake -S . -B "$build" -DCMAKE_BUILD_TYPE=Release -DLORAPP_BUILD_EXAMPLES=ON >"$build/quickstart-configure.log" 2>&1 ||
  { cat "$build/quickstart-configure.log" >&2; exit 1; }
cmake --build "$build" --target quickstart

"$build/examples/quickstart/quickstart" --work-dir "$build/quickstart-out" "$@"
