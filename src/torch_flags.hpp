// Repairs LibTorch's logging flags where another library has written over them.
#pragma once

#include <lorapp/export.hpp>

namespace lorapp::detail {

/// sentencepiece and LibTorch both define a global FLAGS_minloglevel, of different types: in a
/// program that loads LibTorch first, sentencepiece's constructor writes an object of 32 bytes into
/// LibTorch's int and what follows it, FLAGS_caffe2_use_fatal_for_enforce among that. A failed
/// check inside LibTorch (a damaged .pt file, no memory) then ends the process where it should
/// throw.
///
/// Puts both back to LibTorch's defaults if the second holds a value that no bool has; does nothing
/// otherwise. To be called before LibTorch reads what may be damaged.
LORAPP_API void repair_torch_flags() noexcept;

}  // namespace lorapp::detail
