// What a forward pass may keep because its backward pass is next: checkpointing's second one.
// Private to src/.
#pragma once

namespace lorapp::detail {

/// While one lives, on this thread, a product with a 4-bit weight on a GPU keeps the dense matrix
/// that it made, so that its gradient need not make it again.
class RecomputeScope {
 public:
  RecomputeScope() { ++depth(); }
  ~RecomputeScope() { --depth(); }
  RecomputeScope(const RecomputeScope&) = delete;
  RecomputeScope& operator=(const RecomputeScope&) = delete;

  static bool is_active() { return depth() > 0; }

 private:
  static int& depth() {
    thread_local int depth = 0;
    return depth;
  }
};

}  // namespace lorapp::detail
