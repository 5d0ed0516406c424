// Names of quantization types, and the automatic compute dtype.
#include "kernels/cpu_features.hpp"
#include "kernels/table.hpp"

#include <lorapp/error.hpp>
#include <lorapp/quant/config.hpp>

#include "quant/checks.hpp"

namespace lorapp {

std::string_view quant_type_name(QuantType type) { return type == QuantType::nf4 ? "nf4" : "fp4"; }

QuantType parse_quant_type(std::string_view name) {
  if (name == "nf4") return QuantType::nf4;
  LORAPP_CHECK(name == "fp4", "quant_config", "quant_type is \"", name, "\", expected nf4 or fp4");
  return QuantType::fp4;
}

std::ostream& operator<<(std::ostream& out, QuantType type) { return out << quant_type_name(type); }

torch::Dtype resolve_compute_dtype(const std::optional<torch::Dtype>& requested,
                                   torch::Device device) {
  if (requested) {
    LORAPP_CHECK(detail::is_compute_dtype(*requested), "quant_config", "compute_dtype is ",
                 *requested, ", expected float32, bfloat16, float16 or float64");
    return *requested;
  }
  if (!device.is_cpu()) return torch::kBFloat16;
  const bool native = (kernels::cpu_features() & (kernels::kAvx512bf16 | kernels::kAmxBf16)) != 0;
  return native ? torch::kBFloat16 : torch::kFloat32;
}

}  // namespace lorapp
