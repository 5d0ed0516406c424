// Checkpoints of a run: checkpoint-<step> folders that appear whole, the newest of them kept.
// A folder holds the model or adapter, optimizer.safetensors and three JSON files.
#pragma once

#include <lorapp/export.hpp>
#include <lorapp/nn/causal_lm.hpp>
#include <lorapp/train/adamw.hpp>
#include <lorapp/train/callbacks.hpp>
#include <lorapp/train/training_arguments.hpp>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace lorapp {

/// progress.json: what continuing bit for bit needs beyond trainer_state.json. Dropout and data
/// order have no state: both are functions of the seed and the step.
struct LORAPP_API TrainingProgress {
  std::int64_t num_examples = 0;  ///< of the data set
  /// Of the ids and labels of the last step; transformers' checkpoints have none.
  std::optional<std::uint64_t> last_window_hash = {};
  std::int64_t last_logged_step = 0;
  double loss_since_log = 0;  ///< sum of the losses of the steps since

  static TrainingProgress from_file(const std::filesystem::path& path);
  void save(const std::filesystem::path& path) const;
};

/// The checkpoint-<step> folders in `output_dir`, by step; none if it does not exist.
LORAPP_API std::vector<std::filesystem::path> list_checkpoints(
    const std::filesystem::path& output_dir);

/// Deletes the folder of a checkpoint.
LORAPP_API void remove_checkpoint(const std::filesystem::path& dir);

/// `resume` itself, or for "last" the newest checkpoint in `output_dir`. Error if there is none.
LORAPP_API std::filesystem::path find_checkpoint(const std::filesystem::path& resume,
                                                 const std::filesystem::path& output_dir);

/// Writes `output_dir`/checkpoint-<step> whole, in place of one of that name, then deletes older
/// ones until args.save_total_limit are left (never the one just written). Returns its path. An
/// error, such as a full disk, leaves the earlier ones as they were.
LORAPP_API std::filesystem::path save_checkpoint(const CausalLM& model,
                                                 const AdamW& optimizer,
                                                 const TrainingArguments& args,
                                                 const TrainerState& state,
                                                 const TrainingProgress& progress);

/// Everything but the optimizer and the weights.
struct LoadedCheckpoint {
  TrainerState state;
  TrainingProgress progress;
};

/// True for a checkpoint of transformers' Trainer: it has an optimizer.pt, and no progress.json.
LORAPP_API bool is_torch_checkpoint(const std::filesystem::path& dir);

/// Reads a checkpoint into the model and the optimizer, lorapp's own or one of transformers'
/// Trainer, whose files are then compared with the arguments: what they do not fit (also the
/// learning rate, and the epoch that the batches lead to) is one Error. An argument that places the
/// data differently than the checkpoint's run did (batch size, accumulation, seed, shuffle, the
/// number of examples) is an Error.
LORAPP_API LoadedCheckpoint load_checkpoint(const std::filesystem::path& dir,
                                            CausalLM& model,
                                            AdamW& optimizer,
                                            const TrainingArguments& args,
                                            std::int64_t num_examples);

/// The parameters that a run trains, with the names they have in its files. Error if there are
/// none, or if an adapted model trains one that its files would not hold.
LORAPP_API std::vector<std::pair<std::string, torch::Tensor>> trained_parameters(CausalLM& model);

}  // namespace lorapp
