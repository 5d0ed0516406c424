#!/usr/bin/env bash
# The CUDA kernels' speed on this machine's GPU, as tables: bash bench/gpu.sh [STAGE…], by default all of
#   kernels    each kernel beside the copy bandwidth, measured in turn; minutes, without LibTorch
#   peers      the kernels beside bitsandbytes, peft and PyTorch in one process and in turn, results compared first; minutes
# Needs a driver, a CUDA toolkit and cmake, no network; peers a python3 (or LORAPP_PEERS_PYTHON) with torch for CUDA 13, and bitsandbytes and peft in it
# or in the folder that LORAPP_BUNDLE names (cmake/bundle.sh FOLDER --peers makes one).
# A stage that cannot run says "skipped" and why. Status 77: none ran; 1: one failed.
# BUILD_DIR names another folder than build/gpu-bench; what is printed lies there too, as STAGE.md.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
build=${BUILD_DIR:-$PWD/build/gpu-bench}
python=${LORAPP_PEERS_PYTHON:-python3}
stages=("$@")
[ ${#stages[@]} -gt 0 ] || stages=(kernels peers)
for stage in "${stages[@]}"; do
  case $stage in kernels | peers) ;; *) echo "gpu: no stage '$stage'; there are: kernels peers" >&2; exit 2 ;; esac
done

. cmake/find_gpu.sh  # nvcc, arch
if [ -z "$arch" ] || [ -z "$nvcc" ]; then
  echo "skipped: no $([ -z "$arch" ] && echo "GPU" || echo "nvcc") on this machine"
  exit 77
fi

run_kernels() { "$build/gpu_kernels"; }

run_peers() {
  local packages=$build/peers-packages version archive=
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || return 1
  [ -z "${LORAPP_BUNDLE:-}" ] || archive=$LORAPP_BUNDLE/peers-$version.tar.xz
  if [ -n "$archive" ] && [ -f "$archive" ]; then
    # By Python, so that no other program has to know xz.
    rm -rf "$packages"
    "$python" -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' "$archive" "$packages" || return 1
    export PYTHONPATH=$packages${PYTHONPATH:+:$PYTHONPATH}
  elif [ -n "$archive" ]; then
    echo "gpu: no $archive: bitsandbytes and peft are $python's own" >&2
  fi
  "$python" bench/gpu/peers.py "$build/libgpu_peers.so"
}

cmake -S bench/gpu -B "$build" -DCMAKE_BUILD_TYPE=Release -DCMAKE_CUDA_COMPILER="$nvcc" -DCMAKE_CUDA_ARCHITECTURES="$arch" >&2
ran=0 failed=0
for stage in "${stages[@]}"; do
  cmake --build "$build" --target "gpu_$stage" --parallel "$(nproc)" >&2
  status=0
  "run_$stage" | tee "$build/$stage.md" || status=$?
  case $status in
    0) ran=$((ran + 1)) ;;
    77) ;;
    *) failed=1; echo "gpu: stage $stage failed (status $status)" >&2 ;;
  esac
done
[ "$failed" = 0 ] || exit 1
[ "$ran" -gt 0 ] || exit 77
