# Read by tests/gpu.sh and bench/gpu.sh: sets `nvcc`, and `arch` as cmake names the first GPU's, 90a for an H100. Empty: there is none.
nvcc=$(command -v nvcc || true)
for folder in "${CUDA_HOME:-}" "${CUDA_PATH:-}" /usr/local/cuda; do
  if [ -z "$nvcc" ] && [ -n "$folder" ] && [ -x "$folder/bin/nvcc" ]; then nvcc=$folder/bin/nvcc; fi
done
# CUDA's first GPU, of those that are visible, as nvidia-smi numbers them.
export CUDA_DEVICE_ORDER=PCI_BUS_ID
first=${CUDA_VISIBLE_DEVICES-0}
arch=$(nvidia-smi -i "${first%%,*}" --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | sed -n 1p | tr -d .) || arch=
case $arch in '' | *[!0-9]*) arch= ;; esac
case $arch in 90 | 100 | 103) arch=${arch}a ;; esac
