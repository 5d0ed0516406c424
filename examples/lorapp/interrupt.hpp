// Ctrl-C and SIGTERM: a job without state ends at once, one with state is asked to stop.
// Exit status: 128 + the signal's number, as shells count: 130, 143.
#pragma once

#include <atomic>

namespace lorapp::program {

/// From now on a signal ends the program with its exit status; a file that outgrows its limit is an
/// error of the write, not a signal.
void exit_on_signals();

/// From now on the first signal sets stop_flag(), and the second ends the program.
void stop_on_signals();

/// Read by the library's loops.
const std::atomic<bool>& stop_flag();

/// 130 or 143 after a signal that set the flag, else 0.
int signal_exit_status();

}  // namespace lorapp::program
