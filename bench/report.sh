#!/usr/bin/env bash
# The table of speed targets, measured: bash bench/report.sh [--quick] [OPTION…]; --help lists the options.
# Builds the programs it needs in a configured build folder (BUILD_DIR, default build/; tests/run.sh makes one), measures the
# machine's ceilings, lorapp and, where LORAPP_PEERS_PYTHON names a python that has them, the Python stack and llama.cpp in turn,
# prints the table and writes docs/benchmarks.md. At most 25 minutes on 2 cores; --quick, a smoke test, takes less than 4.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
build=${BUILD_DIR:-$PWD/build}
case " $* " in *" --help "* | *" -h "*) exec python3 bench/report.py --help ;; esac
if [ ! -f "$build/CMakeCache.txt" ]; then
  echo "report: $build is no build folder; bash tests/run.sh makes one, or set BUILD_DIR" >&2
  exit 2
fi
for option in LORAPP_BUILD_BENCH LORAPP_BUILD_EXAMPLES; do
  if ! grep -q "^$option:BOOL=ON$" "$build/CMakeCache.txt"; then
    echo "report: $build was configured without $option: cmake -S . -B \"$build\" -D$option=ON" >&2
    exit 2
  fi
done
[ ! -f "$build/lorapp-env.sh" ] || . "$build/lorapp-env.sh"
cmake --build "$build" --target ceilings bench_report link_only lorapp_program >&2
BUILD_DIR=$build exec python3 bench/report.py "$@"
