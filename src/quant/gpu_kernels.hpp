// The row kernels of a GPU by the names of the CPU's table (kernels/table.hpp), so that an
// operation says once what it computes. Private to src/.
#pragma once

#include "quant/gpu.hpp"

namespace lorapp::detail {

/// Launches on the stream of a scope, each of all rows.
class GpuKernels {
 public:
  explicit GpuKernels(const GpuScope& scope) : scope_(scope), kernels_(scope.kernels()) {}

  void rms_norm(const kernels::RmsNormArgs& args) const {
    scope_.check(kernels_.rms_norm(args, scope_.stream()), "rms_norm", args.rows, " rows of ",
                 args.size);
  }
  void rms_norm_backward(const kernels::RmsNormBackwardArgs& args) const {
    scope_.check(kernels_.rms_norm_backward(args, scope_.stream()), "rms_norm_backward", args.rows,
                 " rows of ", args.size);
  }
  void rotate(const kernels::RotateArgs& args) const {
    scope_.check(kernels_.rotate(args, scope_.stream()), "rotate", args.tokens, " tokens, ",
                 args.heads, " heads of ", args.size);
  }
  void swiglu(const kernels::SwiGluArgs& args, const kernels::cuda::GateRows& rows = {}) const {
    scope_.check(kernels_.swiglu(args, scope_.stream(), rows), "swiglu", args.n, " elements");
  }
  void swiglu_backward(const kernels::SwiGluBackwardArgs& args,
                       const kernels::cuda::GateRows& rows = {}) const {
    scope_.check(kernels_.swiglu_backward(args, scope_.stream(), rows), "swiglu_backward", args.n,
                 " elements");
  }
  void cross_entropy(const kernels::CrossEntropyArgs& args) const {
    scope_.check(kernels_.cross_entropy(args, scope_.stream()), "cross_entropy", args.rows,
                 " rows of ", args.size);
  }
  void dropout(const kernels::DropoutArgs& args) const {
    scope_.check(kernels_.dropout(args, scope_.stream()), "dropout", args.n, " elements");
  }
  void adamw(const kernels::AdamWArgs& args) const {
    scope_.check(kernels_.adamw(args, {}, scope_.stream()), "adamw", args.n, " elements");
  }
  void adamw_8bit(const kernels::AdamW8bitArgs& args) const {
    scope_.check(kernels_.adamw_8bit(args, {}, scope_.stream()), "adamw_8bit", args.n, " elements");
  }

 private:
  const GpuScope& scope_;
  const kernels::cuda::Launchers& kernels_;
};

}  // namespace lorapp::detail
