#!/usr/bin/env bash
# Builds lorapp and runs its tests: bash tests/run.sh [CTEST ARGUMENT…]. Slow cases and comparisons with peers are in tests/long.sh.
# BUILD_DIR names another build folder than build/; LORAPP_WERROR=ON makes compiler warnings errors. Exits with the status of the first step that fails.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
build=${BUILD_DIR:-$PWD/build}

bash cmake/setup.sh "$build"
. "$build/lorapp-env.sh"
cmake -S . -B "$build" -DCMAKE_BUILD_TYPE=Release -DLORAPP_BUILD_TESTS=ON -DLORAPP_BUILD_EXAMPLES=ON -DLORAPP_BUILD_BENCH=ON -DLORAPP_WERROR="${LORAPP_WERROR:-OFF}"
cmake --build "$build"
export OMP_WAIT_POLICY=passive  # the tests share the cores: a thread that waits must not hold one
ctest --test-dir "$build" --output-on-failure --no-tests=error --parallel "$(nproc)" --label-exclude '^(slow|peers)$' "$@" </dev/null
