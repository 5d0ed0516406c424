// AdamW over one flat buffer of gradients and moments.
// Parameters are float32, or half precision with a float32 master copy here; moments are float32,
// or codes of 8 bits with an absmax for each 256 of them (adamw_8bit_step.hpp).
#pragma once

#include <lorapp/export.hpp>
#include <lorapp/io/safetensors.hpp>
#include <lorapp/train/adamw_8bit_step.hpp>
#include <lorapp/train/adamw_step.hpp>

#include <torch/types.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace lorapp {

/// True if transformers' Trainer applies weight decay to a parameter of this name: it is no bias
/// and belongs to no norm.
LORAPP_API bool has_weight_decay(const std::string& parameter_name);

/// The order in which transformers' Trainer numbers parameters of these names: those with weight
/// decay first, each kind in the order in which PEFT's model holds them. Indices of `names`.
LORAPP_API std::vector<std::size_t> torch_parameter_order(const std::vector<std::string>& names);

/// The optimizer. While it lives, the gradient of each of its float32 parameters is a view into its
/// buffer, so backward passes add up there.
class LORAPP_API AdamW {
 public:
  struct Options {
    double beta1 = 0.9;
    double beta2 = 0.999;
    double eps = 1e-8;
    double weight_decay = 0;
    /// Of a moment: 32, or 8, with which each element takes 2 bytes here instead of 8. As in
    /// transformers with bitsandbytes, tensors of fewer than kLeast8bitElements and embeddings
    /// (…embed_tokens.weight) keep 32.
    int state_bits = 32;
  };

  /// `parameters` with their names, all contiguous, of a floating dtype, and on
  /// one device: the CPU, or a GPU with kernels. Gradients and moments lie there too.
  AdamW(std::vector<std::pair<std::string, torch::Tensor>> parameters, Options options);
  ~AdamW();
  AdamW(const AdamW&) = delete;
  AdamW& operator=(const AdamW&) = delete;

  /// Sets all gradients to zero.
  void zero_grad();

  /// Takes in what a backward pass left in the gradients of half-precision parameters; to be called
  /// after each one.
  void accumulate();

  /// ‖gradients‖₂ over all parameters.
  double grad_norm() const;

  /// One step with the gradients times `clip`.
  void step(double learning_rate, double clip = 1);

  std::int64_t num_steps() const noexcept { return num_steps_; }
  std::int64_t num_elements() const noexcept { return gradients_.numel(); }

  /// Writes and reads optimizer.safetensors: for each parameter exp_avg.<name>, exp_avg_sq.<name>
  /// (in 8 bits also exp_avg_absmax.<name> and exp_avg_sq_absmax.<name>; in half precision also
  /// master.<name>), the number of steps in the metadata. load() lists all problems in one Error
  /// and changes nothing then.
  void save(const std::filesystem::path& path) const;
  void load(const std::filesystem::path& path);

  /// Reads optimizer.pt as transformers' Trainer writes it (torch.save of torch.optim.AdamW, or of
  /// bitsandbytes' with optim_bits=8). A
  /// file that does not fit these parameters, or whose betas, epsilon or weight decay are others,
  /// is one Error that lists every problem and changes nothing. Nothing of it is executed.
  void load_torch(const std::filesystem::path& path);
  /// Writes such a file. `learning_rate` is that of the next step.
  void save_torch(const std::filesystem::path& path,
                  double learning_rate,
                  double initial_learning_rate) const;

 private:
  struct Slot {
    std::string name;
    torch::Tensor parameter;
    torch::Tensor gradient;  // the parameter's part of gradients_
    torch::Tensor m, v;      // exp_avg, exp_avg_sq: views into moments_, or codes of their own
    torch::Tensor m_absmax, v_absmax;  // of codes; undefined for float32 moments
    torch::Tensor master;              // float32; undefined for a float32 parameter
    double weight_decay;
  };

  std::vector<std::size_t> torch_order() const;
  /// What save() writes, by its name there.
  NamedTensors stored_tensors() const;

  Options options_;
  std::vector<Slot> slots_;
  torch::Tensor gradients_;  // [all elements] float32
  torch::Tensor moments_;    // [2, all elements with float32 moments] float32
  std::int64_t num_steps_ = 0;
};

}  // namespace lorapp
