// optimizer.pt: the state of torch.optim.AdamW, or of bitsandbytes' with optim_bits=8 where moments
// are in 8 bits, as transformers' Trainer saves it.
// A parameter has no name there, only its place: parameters with weight decay first, each group in
// the order in which PEFT's model holds its parameters.
#include "io/torch_file.hpp"
#include "train/adamw_8bit.hpp"

#include <lorapp/error.hpp>
#include <lorapp/train/adamw.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <tuple>

namespace lorapp {

namespace {

using detail::TorchDict;
using detail::TorchItems;
using detail::TorchValue;

constexpr const char* kOp = "optimizer.pt";
// Of float32, in which torch counts the steps: every whole number up to here is one.
constexpr double kMaxSteps = 1 << 24;

// Where transformers' decoders hold their modules, and PEFT's layers their parts.
constexpr std::array<std::string_view, 4> kModelParts = {"embed_tokens", "layers", "norm",
                                                         "lm_head"};
constexpr std::array<std::string_view, 4> kLayerParts = {"self_attn", "mlp", "input_layernorm",
                                                         "post_attention_layernorm"};
constexpr std::array<std::string_view, 9> kModules = {"q_proj",    "k_proj",  "v_proj",
                                                      "o_proj",    "q_norm",  "k_norm",
                                                      "gate_proj", "up_proj", "down_proj"};
constexpr std::array<std::string_view, 8> kTensors = {
    "weight",        "base_layer.weight", "bias",        "base_layer.bias",
    "lora_A.weight", "lora_B.weight",     "lora_B.bias", "lora_embedding_A"};

using Place = std::tuple<std::size_t, std::int64_t, std::size_t, std::size_t, std::size_t>;

template <std::size_t N>
std::size_t index_in(const std::array<std::string_view, N>& names, std::string_view name) {
  return static_cast<std::size_t>(std::find(names.begin(), names.end(), name) - names.begin());
}

// Cuts off what is before the next dot.
std::string_view next_part(std::string_view& rest) {
  const std::size_t dot = rest.find('.');
  const std::string_view part = rest.substr(0, dot);
  rest = dot == std::string_view::npos ? std::string_view() : rest.substr(dot + 1);
  return part;
}

// What sorts a parameter's name in a file, e.g.
// base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight.
Place place_of(std::string_view name) {
  for (const std::string_view prefix : {"base_model.model.", "model."}) {
    if (name.starts_with(prefix)) name.remove_prefix(prefix.size());
  }
  const std::size_t model_part = index_in(kModelParts, next_part(name));
  if (model_part != 1) return {model_part, 0, 0, 0, index_in(kTensors, name)};
  std::int64_t layer = 0;
  for (const char digit : next_part(name)) layer = layer * 10 + (digit - '0');
  const std::size_t layer_part = index_in(kLayerParts, next_part(name));
  const std::size_t module = layer_part < 2 ? index_in(kModules, next_part(name)) : 0;
  return {1, layer, layer_part, module, index_in(kTensors, name)};
}

// A number of the file, whole or not.
std::optional<double> number_in(const TorchValue* value) {
  if (value == nullptr) return std::nullopt;
  if (const auto* whole = value->as<std::int64_t>()) return static_cast<double>(*whole);
  if (const auto* number = value->as<double>()) return *number;
  return std::nullopt;
}

std::string describe(const TorchValue* value) {
  return value == nullptr ? "nothing" : value->describe();
}

// Reads one group's settings, which continue to apply in Python whatever the arguments say.
void check_settings(const TorchValue& group,
                    const char* title,
                    const AdamW::Options& options,
                    double weight_decay,
                    Problems& problems) {
  const auto check = [&](const char* name, const TorchValue* value, double now) {
    const auto then = number_in(value);
    if (!then || *then != now) {
      problems.add(name, " was ", describe(value), " for the parameters ", title, " and is now ",
                   now);
    }
  };
  check("weight_decay", group.find("weight_decay"), weight_decay);
  check("adam_epsilon", group.find("eps"), options.eps);
  const TorchValue* betas = group.find("betas");
  const auto* pair = betas != nullptr ? betas->as<TorchItems>() : nullptr;
  if (pair == nullptr || pair->size() != 2) {
    problems.add("betas is ", describe(betas), "; expected two numbers");
  } else {
    check("adam_beta1", (*pair)[0], options.beta1);
    check("adam_beta2", (*pair)[1], options.beta2);
  }
  for (const char* name : {"amsgrad", "maximize"}) {
    const TorchValue* value = group.find(name);
    if (value == nullptr) continue;  // older than the setting
    const auto* flag = value->as<bool>();
    if (flag == nullptr || *flag) problems.add(name, " is ", describe(value), "; expected False");
  }
}

// One moment of a parameter in float32; undefined where there is a problem.
torch::Tensor read_moment(const detail::TorchFile& file,
                          const TorchValue& entry,
                          const char* moment,
                          const std::string& name,
                          torch::IntArrayRef sizes,
                          Problems& problems) {
  const TorchValue* value = entry.find(moment);
  const detail::TorchTensor* tensor = value != nullptr ? value->tensor() : nullptr;
  if (tensor == nullptr || torch::IntArrayRef(tensor->sizes) != sizes ||
      !c10::isFloatingType(tensor->dtype)) {
    problems.add(moment, " of ", name, " is ", describe(value), "; expected a floating tensor ",
                 sizes);
    return {};
  }
  try {
    torch::Tensor values = file.read(*tensor).to(torch::kFloat32);
    if (!values.isfinite().all().item<bool>() ||
        (std::string_view(moment) == "exp_avg_sq" && values.min().item<float>() < 0)) {
      problems.add(moment, " of ", name, " holds values that no run gives: not finite or negative");
      return {};
    }
    return values;
  } catch (const Error& error) {
    problems.add(moment, " of ", name, ": ", error.what());
    return {};
  }
}

// The number of steps, as the tensor or number that torch keeps for each parameter.
std::optional<std::int64_t> read_steps(const detail::TorchFile& file,
                                       const TorchValue& entry,
                                       const std::string& name,
                                       Problems& problems) {
  const TorchValue* value = entry.find("step");
  auto steps = number_in(value);
  std::string found = describe(value);
  const detail::TorchTensor* tensor = value != nullptr ? value->tensor() : nullptr;
  try {
    if (tensor != nullptr && tensor->sizes.empty()) {
      steps = file.read(*tensor).to(torch::kFloat64).item<double>();
      found = detail::concat(*steps);
    }
  } catch (const Error& error) {
    problems.add("step of ", name, ": ", error.what());
    return std::nullopt;
  }
  if (!steps || !(*steps >= 1 && *steps <= kMaxSteps) || *steps != std::floor(*steps)) {
    problems.add("step of ", name, " is ", found, "; expected a whole number, 1 or more");
    return std::nullopt;
  }
  return static_cast<std::int64_t>(*steps);
}

}  // namespace

std::vector<std::size_t> torch_parameter_order(const std::vector<std::string>& names) {
  std::vector<std::size_t> order(names.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    const bool a_decays = has_weight_decay(names[a]);
    const bool b_decays = has_weight_decay(names[b]);
    return a_decays != b_decays ? a_decays : place_of(names[a]) < place_of(names[b]);
  });
  return order;
}

std::vector<std::size_t> AdamW::torch_order() const {
  std::vector<std::string> names;
  for (const Slot& slot : slots_) names.push_back(slot.name);
  return torch_parameter_order(names);
}

void AdamW::load_torch(const std::filesystem::path& path) {
  const detail::TorchFile file = detail::TorchFile::open(path, kOp);
  const TorchValue* state = file.root().find("state");
  const TorchValue* group_list = file.root().find("param_groups");
  const auto* groups = group_list != nullptr ? group_list->as<TorchItems>() : nullptr;
  LORAPP_CHECK(state != nullptr && state->as<TorchDict>() != nullptr && groups != nullptr &&
                   groups->size() == 2,
               kOp, path.string(), " holds ", file.root().describe(),
               "; expected a dict with \"state\" and, as transformers' Trainer has them, two "
               "\"param_groups\"");

  Problems problems(kOp, path.string());
  if (const std::size_t count = state->as<TorchDict>()->size(); count != slots_.size()) {
    problems.add("it has the state of ", count, " parameters; this model trains ", slots_.size());
    problems.throw_if_any();
  }
  const std::vector<std::size_t> order = torch_order();
  const auto num_decaying = static_cast<std::size_t>(std::count_if(
      slots_.begin(), slots_.end(), [](const Slot& slot) { return has_weight_decay(slot.name); }));
  std::vector<detail::BnbMoments> moments(slots_.size());
  std::optional<std::int64_t> steps;
  for (const bool decays : {true, false}) {
    const TorchValue& group = *(*groups)[decays ? 0 : 1];
    const char* title = decays ? "with weight decay" : "without weight decay";
    const TorchValue* id_list = group.find("params");
    const auto* ids = id_list != nullptr ? id_list->as<TorchItems>() : nullptr;
    const std::size_t first = decays ? 0 : num_decaying;
    const std::size_t count = decays ? num_decaying : slots_.size() - num_decaying;
    if (ids == nullptr || ids->size() != count) {
      problems.add("the parameters ", title, " are ", describe(id_list), "; this model trains ",
                   count, " of them");
      continue;
    }
    if (count > 0) {
      check_settings(group, title, options_, decays ? options_.weight_decay : 0, problems);
    }
    for (std::size_t i = 0; i < count; ++i) {
      Slot& slot = slots_[order[first + i]];
      const auto* id = (*ids)[i]->as<std::int64_t>();
      const TorchValue* entry = id != nullptr ? state->find(*id) : nullptr;
      if (entry == nullptr || entry->as<TorchDict>() == nullptr) {
        problems.add("there is no state of parameter ", (*ids)[i]->describe(), ", ", slot.name);
        continue;
      }
      const TorchValue* bnb = detail::find_bnb_moments(*entry);
      if (bnb != nullptr && options_.state_bits == 32) {
        problems.add(
            "it was written by bitsandbytes' optimizer; expected torch's AdamW "
            "(optim=\"adamw_torch\" or \"adamw_torch_fused\"), or this run with optim "
            "\"adamw_8bit\"");
        break;
      }
      if (bnb == nullptr && options_.state_bits == 8) {
        problems.add(
            "it was written by torch's optimizer; expected bitsandbytes' (optim=\"adamw_8bit\"), "
            "or this run with optim \"adamw_torch\"");
        break;
      }
      const auto step = read_steps(file, *entry, slot.name, problems);
      if (step && !steps) steps = step;
      if (step && *step != *steps) {
        problems.add("step of ", slot.name, " is ", *step, " and that of other parameters ",
                     *steps);
      }
      detail::BnbMoments& found = moments[order[first + i]];
      if (bnb != nullptr) {
        found = detail::read_bnb_moments(file, *bnb, slot.name,
                                         {slot.m, slot.v, slot.m_absmax, slot.v_absmax}, problems);
      } else {
        found.m = read_moment(file, *entry, "exp_avg", slot.name, slot.m.sizes(), problems);
        found.v = read_moment(file, *entry, "exp_avg_sq", slot.name, slot.v.sizes(), problems);
      }
    }
  }
  problems.throw_if_any();

  const torch::NoGradGuard no_grad;
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    slots_[i].m.copy_(moments[i].m);
    slots_[i].v.copy_(moments[i].v);
    if (slots_[i].m_absmax.defined()) {
      slots_[i].m_absmax.copy_(moments[i].m_absmax);
      slots_[i].v_absmax.copy_(moments[i].v_absmax);
    }
    if (slots_[i].master.defined()) slots_[i].master.copy_(slots_[i].parameter);
  }
  num_steps_ = *steps;
}

void AdamW::save_torch(const std::filesystem::path& path,
                       double learning_rate,
                       double initial_learning_rate) const {
  const std::vector<std::size_t> order = torch_order();
  detail::TorchWriter out;
  out.begin_dict();
  out.text("state");
  out.begin_dict();
  for (std::size_t i = 0; i < order.size(); ++i) {
    const Slot& slot = slots_[order[i]];
    out.integer(static_cast<std::int64_t>(i));
    out.begin_dict();
    out.text("step");
    if (options_.state_bits == 8) {
      out.integer(num_steps_);
      detail::write_bnb_moments(out, {slot.m, slot.v, slot.m_absmax, slot.v_absmax});
    } else {
      out.tensor(torch::full({}, static_cast<double>(num_steps_), torch::kFloat32));
      out.text("exp_avg");
      out.tensor(slot.m.to(torch::kCPU));
      out.text("exp_avg_sq");
      out.tensor(slot.v.to(torch::kCPU));
    }
    out.end_dict();
  }
  out.end_dict();
  out.text("param_groups");
  out.begin_list();
  for (const bool decays : {true, false}) {
    out.begin_dict();
    const auto number = [&](const char* name, double value) {
      out.text(name);
      out.number(value);
    };
    number("weight_decay", decays ? options_.weight_decay : 0);
    number("lr", learning_rate);
    out.text("betas");
    out.begin_tuple();
    out.number(options_.beta1);
    out.number(options_.beta2);
    out.end_tuple();
    number("eps", options_.eps);
    if (options_.state_bits == 8) {
      number("alpha", 0);  // of another optimizer of bitsandbytes, as the next two
      for (const char* name : {"t_alpha", "t_beta3"}) {
        out.text(name);
        out.none();
      }
    } else {
      for (const char* name : {"amsgrad", "maximize", "capturable", "differentiable"}) {
        out.text(name);
        out.boolean(false);
      }
      for (const char* name : {"foreach", "fused"}) {
        out.text(name);
        out.none();  // whichever suits the machine that reads it
      }
      out.text("decoupled_weight_decay");
      out.boolean(true);
    }
    number("initial_lr", initial_learning_rate);
    out.text("params");
    out.begin_list();
    for (std::size_t i = 0; i < order.size(); ++i) {
      if (has_weight_decay(slots_[order[i]].name) == decays) {
        out.integer(static_cast<std::int64_t>(i));
      }
    }
    out.end_list();
    out.end_dict();
  }
  out.end_list();
  out.end_dict();
  out.write(path, kOp);
}

}  // namespace lorapp
