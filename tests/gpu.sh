#!/usr/bin/env bash
# The tests of the CUDA kernels on this machine's GPU: bash tests/gpu.sh [DOCTEST ARGUMENT…]. Needs a driver, a CUDA toolkit, cmake and doctest's header,
# which lies in the folder that LORAPP_BUNDLE names (cmake/bundle.sh makes one) or in the system's; no LibTorch and no network.
# After the tests it repeats them under compute-sanitizer (memcheck, racecheck) where the toolkit has it. Without a GPU all is skipped, and nothing passed.
# BUILD_DIR names another folder than build/gpu. The last line is "N passed, N failed, N skipped".
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
build=${BUILD_DIR:-$PWD/build/gpu}
passed=0 failed=0 skipped=0
summary=()

finish() {
  printf '%s\n' "${summary[@]}"
  echo "$passed passed, $failed failed, $skipped skipped"
  [ "$failed" = 0 ]
  exit
}

. cmake/find_gpu.sh  # nvcc, arch
if [ -z "$arch" ] || [ -z "$nvcc" ]; then
  skipped=1
  summary+=("gpu: skipped, no $([ -z "$arch" ] && echo "GPU" || echo "nvcc") on this machine")
  finish
fi
if ! cmake -S tests/cuda/gpu -B "$build" -DCMAKE_BUILD_TYPE=Release -DCMAKE_CUDA_COMPILER="$nvcc" -DCMAKE_CUDA_ARCHITECTURES="$arch" \
  ${LORAPP_BUNDLE:+-DDOCTEST_INCLUDE_DIR="$LORAPP_BUNDLE/include"} || ! cmake --build "$build" --parallel "$(nproc)"; then
  failed=1
  summary+=("gpu: the build failed")
  finish
fi

# count NAME COMMAND…: runs it, and adds what doctest counts. A run that counts nothing is a failure.
count() {
  local name=$1 log=$build/$1.log line
  shift
  local status=0
  "$@" 2>&1 | tee "$log" || status=$?
  if grep -aq '^skipped: ' "$log"; then
    skipped=$((skipped + 1))
    summary+=("$name: $(grep -a '^skipped: ' "$log" | sed -n 1p)")
    return
  fi
  line=$(grep -a 'test cases:' "$log" | tail -n 1 || true)
  if [ -z "$line" ]; then
    failed=$((failed + 1))
    summary+=("$name: no test ran (status $status)")
    return
  fi
  local good bad
  good=$(sed -E 's/.*\| *([0-9]+) passed.*/\1/' <<<"$line")
  bad=$(sed -E 's/.*\| *([0-9]+) failed.*/\1/' <<<"$line")
  if [ "$status" != 0 ] && [ "$bad" = 0 ]; then bad=1; fi  # the sanitizer found something
  if [ $((good + bad)) = 0 ]; then bad=1; fi
  passed=$((passed + good)) failed=$((failed + bad))
  summary+=("$name: $good passed, $bad failed")
}

count tests "$build/lorapp_test_gpu" "$@"
sanitizer=$(command -v compute-sanitizer || true)
[ -n "$sanitizer" ] || sanitizer=$(dirname "$nvcc")/compute-sanitizer
for tool in memcheck racecheck; do
  if [ -x "$sanitizer" ]; then
    # racecheck looks at our kernels: cuBLASLt's are not ours to mend.
    count "$tool" "$sanitizer" --tool "$tool" --error-exitcode 3 "$build/lorapp_test_gpu" "$@" $([ "$tool" = racecheck ] && echo "-tse=products?by*")
  else
    skipped=$((skipped + 1))
    summary+=("$tool: skipped, no compute-sanitizer in this toolkit")
  fi
done
finish
