// quantize_int8: the weight checked, rows split over torch's threads.
#include <lorapp/error.hpp>
#include <lorapp/quant/int8_weight.hpp>

#include "quant/aligned_buffer.hpp"
#include "quant/backend.hpp"
#include "quant/checks.hpp"
#include "quant/float_type.hpp"
#include "quant/grain.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <atomic>
#include <limits>
#include <memory>

namespace lorapp {
namespace {

constexpr const char* kOp = "quantize_int8";

// Codes in memory with large pages, not touched yet: each page belongs to the thread that writes
// it, which is the one that will read it.
at::Tensor empty_codes(std::int64_t rows, std::int64_t columns) {
  const auto buffer = std::make_shared<detail::AlignedBuffer>(rows * columns);
  return at::from_blob(
      buffer->data(), {rows, columns}, [buffer](void*) {}, at::kChar);
}

}  // namespace

Int8Weight quantize_int8(const torch::Tensor& w, std::string_view name) {
  LORAPP_CHECK(w.defined(), kOp, name, " is an undefined tensor");
  LORAPP_CHECK(detail::is_quantizable(w.scalar_type()), kOp, name, " is ", w.scalar_type(),
               ", expected float32, bfloat16 or float16");
  LORAPP_CHECK(w.layout() == at::kStrided && w.dim() == 2 && w.numel() > 0, kOp, name,
               " has the shape ", w.sizes(), ", expected a dense matrix of at least one element");
  LORAPP_CHECK(w.device().is_cpu(), kOp, name, " is on ", w.device(),
               ", expected a tensor on the CPU");
  const at::Tensor x = w.stride(1) == 1 ? w.detach() : w.detach().contiguous();
  const std::int64_t rows = x.size(0), columns = x.size(1);
  Int8Weight result{empty_codes(rows, columns), at::empty({rows}, at::kFloat), w.scalar_type()};
  const auto& table = detail::kernel_table();
  const auto* data = static_cast<const char*>(x.const_data_ptr());
  const auto row_bytes = x.stride(0) * static_cast<std::int64_t>(x.element_size());
  constexpr std::int64_t kNone = std::numeric_limits<std::int64_t>::max();
  std::atomic<std::int64_t> first_bad{kNone};
  at::parallel_for(0, rows, detail::grain_for(columns, detail::kCodeGrain),
                   [&](std::int64_t begin, std::int64_t end) {
                     const std::int64_t bad = table.quantize_int8({
                         .x = data + begin * row_bytes,
                         .x_type = detail::float_type(x.scalar_type()),
                         .rows = end - begin,
                         .columns = columns,
                         .stride = x.stride(0),
                         .codes = result.codes.mutable_data_ptr<std::int8_t>() + begin * columns,
                         .absmax = result.absmax.mutable_data_ptr<float>() + begin,
                     });
                     if (bad < 0) return;
                     const std::int64_t at = begin * columns + bad;
                     std::int64_t seen = first_bad.load();
                     while (at < seen && !first_bad.compare_exchange_weak(seen, at)) {
                     }
                   });
  const std::int64_t bad = first_bad.load();
  LORAPP_CHECK(bad == kNone, kOp, name, "[", bad / columns, ", ", bad % columns, "] is ",
               x[bad / columns][bad % columns].to(at::kFloat).item<float>(),
               ", expected finite weights");
  return result;
}

}  // namespace lorapp
