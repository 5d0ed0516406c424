// Models that were quantized while they were loaded, kept on disk for the next start.
#pragma once

#include <lorapp/nn/load.hpp>

#include "nn/weight_sources.hpp"

#include <filesystem>

namespace lorapp::detail {

/// The 4-bit folder in options.quant_cache that quantize_pretrained makes of a model folder with
/// these options; made now where it is missing. Its name is the SHA-256 of everything that it
/// depends on: config.json, the files of weights, the options, the version of the cache.
///
/// The digest of a file is kept in the cache with the file's size, time and inode, and taken from
/// there while these are the same; that of a file in the Hugging Face cache is its name.
std::filesystem::path cached_quantized_folder(const ModelFolder& folder,
                                              const LoadOptions& options);

}  // namespace lorapp::detail
