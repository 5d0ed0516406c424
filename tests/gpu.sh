#!/usr/bin/env bash
# The tests of the CUDA kernels on this machine's GPU: bash tests/gpu.sh [STAGE…], by default all of
#   kernels    the kernels by themselves; needs a driver, a CUDA toolkit, cmake and doctest's header
#   sanitizer  the same under compute-sanitizer (memcheck, racecheck), where the toolkit has it
#   tensors    tensors of LibTorch on the GPU: builds lorapp with CUDA by the torch package of python3 (or of LORAPP_PEERS_PYTHON), and needs what lorapp does
# No network. Headers and libraries that the system lacks lie in the folder that LORAPP_BUNDLE names (cmake/bundle.sh makes one).
# Without a GPU all is skipped, and nothing passed. BUILD_DIR names another folder than build/gpu. The last line is "N passed, N failed, N skipped".
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
build=${BUILD_DIR:-$PWD/build/gpu}
python=${LORAPP_PEERS_PYTHON:-python3}
stages=("$@")
[ ${#stages[@]} -gt 0 ] || stages=(kernels sanitizer tensors)
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
# count NAME COMMAND…: runs it, and adds what doctest counts. A run that counts nothing is a failure.
count() {
  local name=$1 log=$build/$1.log line
  shift
  local status=0
  "$@" 2>&1 | tee "$log" || status=$?
  if grep -aq '^skipped: ' "$log"; then  # there is a GPU, and CUDA does not start on it
    failed=$((failed + 1))
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

broken() {  # broken NAME WHY
  failed=$((failed + 1))
  summary+=("$1: $2")
}
skip() {  # skip NAME WHY
  skipped=$((skipped + 1))
  summary+=("$1: skipped, $2")
}

build_kernels() {
  cmake -S tests/cuda/gpu -B "$build" -DCMAKE_BUILD_TYPE=Release -DCMAKE_CUDA_COMPILER="$nvcc" -DCMAKE_CUDA_ARCHITECTURES="$arch" \
    ${LORAPP_BUNDLE:+-DDOCTEST_INCLUDE_DIR="$LORAPP_BUNDLE/include"} && cmake --build "$build" --parallel "$(nproc)"
}

stage_kernels() {
  if build_kernels; then count kernels "$build/lorapp_test_gpu"; else broken kernels "the build failed"; fi
}

stage_sanitizer() {
  local sanitizer tool
  sanitizer=$(command -v compute-sanitizer || true)
  [ -n "$sanitizer" ] || sanitizer=$(dirname "$nvcc")/compute-sanitizer
  if [ ! -x "$sanitizer" ]; then
    skip sanitizer "no compute-sanitizer in this toolkit"
  elif build_kernels; then
    for tool in memcheck racecheck; do
      # racecheck looks at our kernels: cuBLASLt's are not ours to mend.
      count "$tool" "$sanitizer" --tool "$tool" --error-exitcode 3 "$build/lorapp_test_gpu" $([ "$tool" = racecheck ] && echo "-tse=products?by*")
    done
  else
    broken sanitizer "the build failed"
  fi
}

stage_tensors() {
  local torch
  torch=$("$python" -c 'import os, torch; print(os.path.dirname(torch.__file__) if torch.version.cuda else "")' 2>/dev/null) || torch=
  if [ -z "$torch" ]; then
    skip tensors "$python has no torch with CUDA"
  elif cmake -S . -B "$build/tensors" -DCMAKE_BUILD_TYPE=Release -DTORCH_ROOT="$torch" -DLORAPP_CUDA=ON -DLORAPP_CUDA_ARCHS="$arch" -DCMAKE_CUDA_COMPILER="$nvcc" \
    -DCMAKE_PREFIX_PATH="${LORAPP_BUNDLE:-}" -DLORAPP_HUB=OFF -DLORAPP_BUILD_EXAMPLES=OFF -DLORAPP_BUILD_BENCH=OFF -DFETCHCONTENT_FULLY_DISCONNECTED=ON &&
    cmake --build "$build/tensors" --target lorapp_test_cuda_tensors --parallel "$(nproc)"; then
    count tensors "$build/tensors/tests/cuda/lorapp_test_cuda_tensors"
  else
    broken tensors "the build failed"
  fi
}

for stage in "${stages[@]}"; do
  declare -F "stage_$stage" >/dev/null || { echo "gpu: no stage '$stage'; there are: kernels sanitizer tensors" >&2; exit 2; }
  "stage_$stage"
done
finish
