// What this process has used of the machine's memory.
// Bytes; mapped file pages count while they are resident, as the kernel counts them.
#pragma once

#include <lorapp/export.hpp>

#include <cstdint>

namespace lorapp {

/// The largest resident size that this process has had so far, in bytes (Linux: VmHWM of
/// /proc/self/status; elsewhere getrusage). 0 where the system does not tell.
LORAPP_API std::uint64_t peak_memory_bytes();

}  // namespace lorapp
