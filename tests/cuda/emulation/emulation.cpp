// Fibers for the threads of a block: one context each, which gives up its turn at barriers.
#include "cuda_runtime.h"
#include "order.hpp"

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <exception>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#define EMULATION_UNDER_SANITIZER
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EMULATION_UNDER_SANITIZER
#endif
#endif

namespace emulation {
namespace {

constexpr int kLanes = 32;
constexpr std::size_t kStackBytes = 128 * 1024;

// A place to go on from. After its first turn a context is left and entered by jumps, which unlike
// swapcontext ask nothing of the system; a sanitizer does not follow jumps between stacks.
struct Context {
  ucontext_t first;
  jmp_buf jump;
  bool has_jump = false;
};

void change(Context& from, Context& to) {
#if defined(EMULATION_UNDER_SANITIZER)
  swapcontext(&from.first, &to.first);
#else
  from.has_jump = true;
  if (_setjmp(from.jump) != 0) return;
  if (to.has_jump) _longjmp(to.jump, 1);
  setcontext(&to.first);
#endif
}

enum class State { ready, at_block_barrier, at_warp_barrier, ended };

struct Fiber {
  Context context;
  State state = State::ready;
  Position position;
  const void* given = nullptr;  // to a shuffle
};

class Block {
 public:
  Block(unsigned threads, const std::function<void()>& kernel, const Order& order)
      : kernel_(kernel), fibers_(threads), turns_(kLanes), order_(order), random_(order.seed) {
    if (threads % kLanes != 0) throw std::logic_error("a block of part of a warp");
    // Kept from launch to launch: fresh memory costs more than what most kernels do.
    thread_local std::vector<std::unique_ptr<char[]>> stacks;
    while (stacks.size() < threads) {
      stacks.push_back(std::make_unique_for_overwrite<char[]>(kStackBytes));
    }
    for (unsigned i = 0; i < threads; ++i) {
      ucontext_t& first = fibers_[i].context.first;
      getcontext(&first);
      first.uc_stack.ss_sp = stacks[i].get();
      first.uc_stack.ss_size = kStackBytes;
      first.uc_link = nullptr;
      makecontext(&first, &Block::enter, 0);
    }
    std::iota(turns_.begin(), turns_.end(), 0u);
    if (order.descending) std::reverse(turns_.begin(), turns_.end());
  }

  void run(unsigned block) {
    current_block = this;
    for (unsigned i = 0; i < fibers_.size(); ++i) {
      fibers_[i].state = State::ready;
      fibers_[i].position = {{i, 0, 0}, {block, 0, 0}};
    }
    while (round()) {
    }
    if (error_) std::rethrow_exception(error_);
    current_block = nullptr;
  }

  void wait(State at) {
    Fiber& fiber = *running_;
    fiber.state = at;
    change(fiber.context, scheduler_);
  }

  Fiber& running() { return *running_; }
  Fiber& lane_of_warp(int lane) {
    return fibers_[running_->position.thread.x / kLanes * kLanes + static_cast<unsigned>(lane)];
  }

  static thread_local Block* current_block;

 private:
  // A thread of one block after the other.
  static void enter() {
    Block& block = *current_block;
    for (;;) {
      try {
        block.kernel_();
      } catch (...) {
        block.error_ = std::current_exception();
      }
      block.wait(State::ended);
    }
  }

  // Lets fibers that can go on do so. False when all have ended.
  bool round() {
    if (order_.random) std::shuffle(turns_.begin(), turns_.end(), random_);
    bool moved = false;
    for (std::size_t w = 0; w < fibers_.size() / kLanes; ++w) {
      const std::size_t warp = order_.descending ? fibers_.size() / kLanes - 1 - w : w;
      while (turn_of(warp)) {
        moved = true;
        if (error_) return false;
        if (!order_.greedy) break;
      }
    }
    moved = release(0, fibers_.size(), State::at_block_barrier) || moved;
    if (moved) return true;
    const auto ended = std::count_if(fibers_.begin(), fibers_.end(),
                                     [](const Fiber& f) { return f.state == State::ended; });
    if (ended == static_cast<std::ptrdiff_t>(fibers_.size())) return false;
    throw std::logic_error("block " + std::to_string(fibers_[0].position.block.x) + ": " +
                           std::to_string(ended) + " of " + std::to_string(fibers_.size()) +
                           " threads have ended, and the others wait for each other");
  }

  // Runs what is ready of a warp to its next barrier.
  bool turn_of(std::size_t warp) {
    bool moved = false;
    for (const unsigned turn : turns_) {
      Fiber& fiber = fibers_[warp * kLanes + turn];
      if (fiber.state != State::ready) continue;
      moved = true;
      running_ = &fiber;
      change(scheduler_, fiber.context);
      if (error_) return true;
    }
    return release(warp * kLanes, kLanes, State::at_warp_barrier) || moved;
  }

  // Whether all of these fibers waited there, and go on.
  bool release(std::size_t begin, std::size_t count, State at) {
    const auto first = fibers_.begin() + static_cast<std::ptrdiff_t>(begin);
    const auto last = first + static_cast<std::ptrdiff_t>(count);
    if (!std::all_of(first, last, [&](const Fiber& f) { return f.state == at; })) return false;
    std::for_each(first, last, [](Fiber& f) { f.state = State::ready; });
    return true;
  }

  const std::function<void()>& kernel_;
  std::vector<Fiber> fibers_;
  std::vector<unsigned> turns_;  // lanes of a warp
  Order order_;
  std::mt19937_64 random_;
  Context scheduler_;
  Fiber* running_ = nullptr;
  std::exception_ptr error_;
};

thread_local Block* Block::current_block = nullptr;
Order current_order;

}  // namespace

const Position& position() { return Block::current_block->running().position; }

int run(dim3 grid, dim3 block, const std::function<void()>& kernel, void*) {
  Block threads(block.x, kernel, current_order);
  for (unsigned i = 0; i < grid.x; ++i) threads.run(i);
  return cudaSuccess;
}

void set_order(const Order& order) { current_order = order; }

void sync_block() { Block::current_block->wait(State::at_block_barrier); }
void sync_warp() { Block::current_block->wait(State::at_warp_barrier); }

void shuffle(const void* value, void* result, std::size_t size, int source) {
  Block& block = *Block::current_block;
  block.running().given = value;
  sync_warp();
  std::memcpy(result, block.lane_of_warp(source).given, size);
  sync_warp();  // nobody's value goes before all have read
}

void mma_bf16(float (&c)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  struct Fragments {
    std::uint32_t a[4], b[2];
  } own;
  std::memcpy(own.a, a, sizeof own.a);
  std::memcpy(own.b, b, sizeof own.b);
  Block& block = *Block::current_block;
  block.running().given = &own;
  sync_warp();
  const auto of = [&](int lane) {
    return static_cast<const Fragments*>(block.lane_of_warp(lane).given);
  };
  const auto half = [](std::uint32_t pair, int upper) {
    const std::uint32_t bits = upper != 0 ? pair & 0xffff0000u : pair << 16;
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
  };
  // Column k of A's row r is in lane 4 (r mod 8) + (k mod 8) / 2, word r / 8 + 2 (k / 8); row k of
  // B's column n in lane 4 n + (k mod 8) / 2, word k / 8.
  for (int i = 0; i < 4; ++i) {
    const int row = lane() / 4 + i / 2 * 8, column = lane() % 4 * 2 + i % 2;
    for (int k = 0; k < 16; ++k) {
      const int part = k % 8 / 2;
      const float x = half(of(row % 8 * 4 + part)->a[row / 8 + k / 8 * 2], k % 2);
      const float y = half(of(column * 4 + part)->b[k / 8], k % 2);
      c[i] += x * y;
    }
  }
  sync_warp();
}

int lane() { return static_cast<int>(position().thread.x % kLanes); }

}  // namespace emulation
