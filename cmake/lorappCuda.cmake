# How nvcc compiles the kernels of cuda/, wherever it is called from.
#  - no contraction: codecs and optimizer steps have the bits of the CPU's kernels; sums that may be fused say so (fmaf)
set(LORAPP_NVCC_FLAGS -O3 --fmad=false)
