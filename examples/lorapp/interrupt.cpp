// The signal handlers; they touch lock-free atomics and _exit only, which a handler may.
#include "interrupt.hpp"

#include <csignal>

#include <unistd.h>

namespace lorapp::program {

namespace {

std::atomic<bool> stop_requested{false};
std::atomic<int> received{0};
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<int>::is_always_lock_free);

extern "C" void exit_now(int signal) { _exit(128 + signal); }

extern "C" void request_stop(int signal) {
  if (stop_requested.exchange(true)) _exit(128 + signal);
  received = signal;
}

void install(void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  for (const int signal : {SIGINT, SIGTERM}) sigaction(signal, &action, nullptr);
}

}  // namespace

void exit_on_signals() {
  install(exit_now);
  // Beyond `ulimit -f` a write then fails, and is reported like any full disk.
  signal(SIGXFSZ, SIG_IGN);
}
void stop_on_signals() { install(request_stop); }
const std::atomic<bool>& stop_flag() { return stop_requested; }
int signal_exit_status() { return received == 0 ? 0 : 128 + received; }

}  // namespace lorapp::program
