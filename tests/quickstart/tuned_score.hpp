// What a base scores on the held-out questions once it is tuned on given rows.
#pragma once

#include "support/temporary_folder.hpp"

#include <quickstart/experiment.hpp>

#include <cstdint>
#include <filesystem>
#include <vector>

namespace lorapp::test {

inline quickstart::Score tuned_score(const std::filesystem::path& base,
                                     const std::vector<quickstart::Question>& rows,
                                     const std::vector<quickstart::Question>& held_out,
                                     std::uint64_t seed) {
  const TemporaryFolder folder;
  quickstart::write_dolly_file(folder / "rows.jsonl", rows);
  const auto tokenizer = Tokenizer::from_pretrained(base);
  const auto model = quickstart::tune(quickstart::load_base(base), tokenizer, folder / "rows.jsonl",
                                      folder / "out", seed, nullptr);
  return quickstart::ask_all(*model, tokenizer, held_out);
}

}  // namespace lorapp::test
