// Reading bitsandbytes' 4-bit weights: docs of the layout are in bnb_checkpoint.hpp.
#include "nn/bnb_checkpoint.hpp"

#include <lorapp/io/dtype.hpp>

#include "json_file.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace lorapp::detail {

namespace {

constexpr std::string_view kOp = "load";
constexpr const char* kStateSuffixes[] = {".quant_state.bitsandbytes__nf4",
                                          ".quant_state.bitsandbytes__fp4"};  // by QuantType
constexpr const char* kTensorSuffixes[] = {".absmax", ".quant_map", ".nested_absmax",
                                           ".nested_quant_map"};

std::string state_name(const Checkpoint& checkpoint, const std::string& name) {
  for (const char* suffix : kStateSuffixes) {
    if (checkpoint.contains(name + suffix)) return name + suffix;
  }
  return {};
}

nlohmann::json read_state(const Checkpoint& checkpoint, const std::string& name) {
  const std::string key = state_name(checkpoint, name);
  const torch::Tensor bytes = checkpoint.view(key).contiguous();
  LORAPP_CHECK(bytes.element_size() == 1, kOp, key, " is ", bytes.dtype(), "; expected U8");
  const std::string_view text(static_cast<const char*>(bytes.const_data_ptr()),
                              static_cast<std::size_t>(bytes.numel()));
  nlohmann::json state = parse_json(text, kOp, key);
  LORAPP_CHECK(state.is_object(), kOp, key, ": expected a JSON object");
  return state;
}

constexpr std::int64_t kMaxBlocksize = std::int64_t{1} << 20;

}  // namespace

std::vector<std::string> bnb_companions(const Checkpoint& checkpoint, const std::string& name) {
  const std::string state = state_name(checkpoint, name);
  if (state.empty()) return {};
  std::vector<std::string> found = {state};
  for (const char* suffix : kTensorSuffixes) {
    if (checkpoint.contains(name + suffix)) found.push_back(name + suffix);
  }
  return found;
}

std::optional<std::vector<std::int64_t>> bnb_shape(const Checkpoint& checkpoint,
                                                   const std::string& name,
                                                   Problems& problems) {
  try {
    const nlohmann::json state = read_state(checkpoint, name);
    const auto shape = find_ints(state, "shape", problems, 1);
    if (!shape && !state.contains("shape")) problems.add(name, ": quant_state has no shape");
    return shape;
  } catch (const Error& error) {
    problems.add(error.what());
    return std::nullopt;
  }
}

QuantizedTensor read_bnb_weight(const Checkpoint& checkpoint,
                                const std::string& name,
                                torch::Device device,
                                bool mapped) {
  const nlohmann::json state = read_state(checkpoint, name);
  Problems problems(std::string(kOp), state_name(checkpoint, name));
  const auto read = [&](const std::string& tensor) {
    if (!checkpoint.contains(tensor)) {
      problems.add("the tensor ", tensor, " is missing");
      return torch::Tensor();
    }
    const torch::Tensor view = checkpoint.view(tensor);
    return mapped || !device.is_cpu() ? view : view.clone();  // to another device it is copied
  };
  QuantizedTensor::Parts parts;
  parts.codes = read(name);
  // quant_storage may have packed the bytes into a wider type.
  if (parts.codes.defined()) parts.codes = parts.codes.view({-1}).view(torch::kUInt8);
  parts.absmax = read(name + ".absmax");
  parts.code = read(name + ".quant_map");
  parts.blocksize = get_int(state, "blocksize", problems, 1, kMaxBlocksize);
  parts.shape = find_ints(state, "shape", problems, 1).value_or(std::vector<std::int64_t>{});
  try {
    parts.quant_type = parse_quant_type(get_string(state, "quant_type", problems));
    parts.dtype = parse_hf_dtype(get_string(state, "dtype", problems));
  } catch (const Error& error) {
    problems.add(error.what());
  }
  if (state.contains("nested_blocksize")) {
    parts.nested_absmax = read(name + ".nested_absmax");
    parts.nested_code = read(name + ".nested_quant_map");
    parts.nested_blocksize = get_int(state, "nested_blocksize", problems, 1, kMaxBlocksize);
    parts.nested_offset = static_cast<float>(get_double(state, "nested_offset", problems));
  }
  problems.throw_if_any();
  // Checked where its numbers can be looked at, then moved.
  return QuantizedTensor::from_parts(std::move(parts), name).to(device);
}

NamedTensors bnb_tensors(const std::string& name, const QuantizedTensor& weight) {
  nlohmann::ordered_json state = {{"quant_type", quant_type_name(weight.quant_type())},
                                  {"blocksize", weight.blocksize()},
                                  {"dtype", hf_dtype_name(weight.dtype())},
                                  {"shape", weight.shape()}};
  NamedTensors tensors = {{name, weight.codes().view({-1, 1})},
                          {name + ".absmax", weight.absmax()},
                          {name + ".quant_map", weight.code()}};
  if (weight.is_nested()) {
    state["nested_blocksize"] = weight.nested_blocksize();
    state["nested_dtype"] = "float32";
    state["nested_offset"] = static_cast<double>(weight.nested_offset());
    tensors.emplace_back(name + ".nested_absmax", weight.nested_absmax());
    tensors.emplace_back(name + ".nested_quant_map", weight.nested_code());
  }
  const std::string text = dump_json(state, {.indent = -1});
  torch::Tensor bytes = torch::empty({static_cast<std::int64_t>(text.size())}, torch::kUInt8);
  std::copy(text.begin(), text.end(), bytes.mutable_data_ptr<std::uint8_t>());
  tensors.emplace_back(name + kStateSuffixes[static_cast<std::size_t>(weight.quant_type())], bytes);
  return tensors;
}

}  // namespace lorapp::detail
