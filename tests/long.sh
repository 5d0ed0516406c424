#!/usr/bin/env bash
# The second tier of tests, beside tests/run.sh: bash tests/long.sh [STAGE…], by default all of
#   sanitize   every unit test under the address and undefined-behaviour sanitizers
#   clang      the tests of a build by clang++ (skipped where there is none)
#   cuda       the tests of a build with the CUDA kernels behind the tensor API, beside a LibTorch with all its dependencies, which
#              is installed into this build (LORAPP_CUDA_PYTHON names a python that has it); cases that ask for a GPU skip without
#              one (skipped where there is no nvcc)
#   peers      comparisons with transformers, peft, bitsandbytes and llama.cpp, in a Python environment of this build
#              (LORAPP_PEERS_PYTHON names a python that has them)
#   slow       what takes minutes: the quickstart with its controls, its base made anew from another seed,
#              packages with builds of their own
# The last line is "N passed, N failed, N skipped". BUILD_DIR as in tests/run.sh; the other builds lie in BUILD_DIR/long.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
build=${BUILD_DIR:-$PWD/build}
stages=("$@")
[ ${#stages[@]} -gt 0 ] || stages=(sanitize clang cuda peers slow)

bash cmake/setup.sh "$build"
. "$build/lorapp-env.sh"
mkdir -p "$build/long"

export OMP_WAIT_POLICY=passive  # as in tests/run.sh
passed=0 failed=0 skipped=0
summary=()

# count NAME FILE: adds what a JUnit report of ctest says.
count() {
  local tests failures missing
  tests=$(grep -m1 -o 'tests="[0-9]*"' "$2" | tr -dc 0-9)
  failures=$(grep -m1 -o 'failures="[0-9]*"' "$2" | tr -dc 0-9)
  missing=$(grep -m1 -o 'skipped="[0-9]*"' "$2" | tr -dc 0-9)
  passed=$((passed + tests - failures - missing)) failed=$((failed + failures)) skipped=$((skipped + missing))
  summary+=("$1: $((tests - failures - missing)) passed, $failures failed, $missing skipped")
}

broken() {  # broken NAME WHY: a stage that ran no test is one failure
  failed=$((failed + 1))
  summary+=("$1: $2")
}

# make NAME FOLDER TARGETS OPTION…: configures and builds; TARGETS is "all" or names.
make() {
  local name=$1 folder=$2 targets=$3 log=$build/long/$1.log
  shift 3
  cmake -S . -B "$folder" "$@" >"$log" 2>&1 && cmake --build "$folder" --target $targets >>"$log" 2>&1 && return
  tail -n 40 "$log"
  broken "$name" "the build failed ($log)"
  return 1
}

run_tests() {  # run_tests NAME FOLDER CTEST-ARGUMENT…
  local name=$1 folder=$2 report=$build/long/$1.xml
  shift 2
  rm -f "$report"
  ctest --test-dir "$folder" --output-on-failure --no-tests=error --output-junit "$report" "$@" </dev/null || true
  if [ -s "$report" ]; then count "$name" "$report"; else broken "$name" "no test ran"; fi
}

stage_sanitize() {
  make sanitize "$build/long/sanitize" all -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_CXX_FLAGS_RELWITHDEBINFO="-O1 -g1" \
    -DLORAPP_SANITIZE=address,undefined -DLORAPP_BUILD_TESTS=ON -DLORAPP_BUILD_EXAMPLES=ON -DLORAPP_BUILD_BENCH=OFF || return 0
  # LibTorch is not compiled with the sanitizers: its own allocations at exit are not ours to report.
  ASAN_OPTIONS=detect_leaks=0:abort_on_error=0:detect_container_overflow=0 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
    run_tests sanitize "$build/long/sanitize" --label-exclude '^(slow|peers|checks|package)$'
}

stage_clang() {
  local compiler
  compiler=$(command -v clang++ || true)
  if [ -z "$compiler" ]; then
    skipped=$((skipped + 1))
    summary+=("clang: skipped, no clang++ on this machine")
    return 0
  fi
  make clang "$build/long/clang" all -DCMAKE_CXX_COMPILER="$compiler" -DCMAKE_BUILD_TYPE=Release -DLORAPP_WERROR=ON -DLORAPP_BUILD_BENCH=ON || return 0
  run_tests clang "$build/long/clang" --label-exclude '^(slow|peers|package)$'
}

stage_cuda() {
  local nvcc python=${LORAPP_CUDA_PYTHON:-$build/long/cuda-python/bin/python} torch
  nvcc=$(. cmake/find_gpu.sh && echo "$nvcc")
  if [ -z "$nvcc" ]; then
    skipped=$((skipped + 1))
    summary+=("cuda: skipped, no nvcc on this machine")
    return 0
  fi
  if [ ! -x "$python" ]; then
    echo "long: installing LibTorch with its dependencies into $build/long/cuda-python"
    if ! { python3 -m venv "$build/long/cuda-python" && "$python" -m pip install --quiet --disable-pip-version-check torch==2.11.0; }; then
      rm -rf "$build/long/cuda-python"
      broken cuda "the Python package torch could not be installed"
      return 0
    fi
  fi
  torch=$("$python" -c 'import importlib.util as u; print(u.find_spec("torch").submodule_search_locations[0])') ||
    { broken cuda "$python has no torch"; return 0; }
  make cuda "$build/long/cuda" all -DTORCH_ROOT="$torch" -DCMAKE_CUDA_COMPILER="$nvcc" -DLORAPP_CUDA=ON -DLORAPP_CUDA_ARCHS=90 \
    -DCMAKE_BUILD_TYPE=Release -DLORAPP_BUILD_TESTS=ON -DLORAPP_BUILD_EXAMPLES=ON -DLORAPP_BUILD_BENCH=OFF || return 0
  run_tests cuda "$build/long/cuda" --label-exclude '^(slow|peers|checks)$'
}

stage_peers() {
  local python=${LORAPP_PEERS_PYTHON:-$build/long/peers/bin/python}
  if [ ! -x "$python" ]; then
    echo "long: installing the Python peers into $build/long/peers"
    if ! { python3 -m venv "$build/long/peers" && "$python" -m pip install --quiet --disable-pip-version-check \
      torch==2.11.0 transformers==5.23.0 peft==0.21.2 bitsandbytes==0.50.2 accelerate==1.15.0 sentencepiece safetensors; }; then
      rm -rf "$build/long/peers"
      broken peers "the Python packages could not be installed"
      return 0
    fi
    # llama.cpp is compiled while it is installed, which not every machine can do; its tests then say so.
    "$python" -m pip install --quiet --disable-pip-version-check gguf==0.19.0 llama-cpp-python==0.3.36 ||
      { skipped=$((skipped + 1)) && summary+=("peers: llama.cpp's tests skipped, it could not be installed"); }
  fi
  make peers "$build" all -DCMAKE_BUILD_TYPE=Release || return 0
  LORAPP_PEERS_PYTHON=$python HF_HUB_OFFLINE=1 run_tests peers "$build" --label-regex '^peers$'
}

stage_slow() {
  make slow "$build" all -DCMAKE_BUILD_TYPE=Release || return 0
  run_tests slow "$build" --label-regex '^slow$'
}

for stage in "${stages[@]}"; do
  declare -F "stage_$stage" >/dev/null || { echo "long: no stage '$stage'; there are: sanitize clang cuda peers slow" >&2; exit 2; }
  echo "long: $stage"
  "stage_$stage"
done

printf '%s\n' "${summary[@]}"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
