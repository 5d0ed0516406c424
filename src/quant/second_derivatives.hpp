// How a backward pass whose gradients are made by kernels refuses to be differentiated.
// Private to src/.
#pragma once

#include <lorapp/error.hpp>

#include <c10/core/GradMode.h>

namespace lorapp::detail {

/// To be called by a backward pass: Error(op) if autograd would differentiate it (create_graph). A
/// kernel's results have no graph, so that second derivatives would silently be zero.
inline void refuse_second_derivatives(const char* op) {
  LORAPP_CHECK(!c10::GradMode::is_enabled(), op,
               "second derivatives are not supported: the gradient was itself asked to be "
               "differentiable (create_graph)");
}

}  // namespace lorapp::detail
