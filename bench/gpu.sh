#!/usr/bin/env bash
# The CUDA kernels' speed on this machine's GPU, as a table: bash bench/gpu.sh [STAGE…], by default all of
#   kernels    each kernel beside the copy bandwidth, measured in turn; minutes, without LibTorch
# Needs a driver, a CUDA toolkit and cmake, no network. Without a GPU it says "skipped" and ends with status 77.
# BUILD_DIR names another folder than build/gpu-bench; what is printed lies there too, as STAGE.md.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
build=${BUILD_DIR:-$PWD/build/gpu-bench}
stages=("$@")
[ ${#stages[@]} -gt 0 ] || stages=(kernels)
for stage in "${stages[@]}"; do
  [ "$stage" = kernels ] || { echo "gpu: no stage '$stage'; there are: kernels" >&2; exit 2; }
done

. cmake/find_gpu.sh  # nvcc, arch
if [ -z "$arch" ] || [ -z "$nvcc" ]; then
  echo "skipped: no $([ -z "$arch" ] && echo "GPU" || echo "nvcc") on this machine"
  exit 77
fi
cmake -S bench/gpu -B "$build" -DCMAKE_BUILD_TYPE=Release -DCMAKE_CUDA_COMPILER="$nvcc" -DCMAKE_CUDA_ARCHITECTURES="$arch" >&2
cmake --build "$build" --parallel "$(nproc)" >&2
for stage in "${stages[@]}"; do
  "$build/gpu_$stage" | tee "$build/$stage.md"
done
