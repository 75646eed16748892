// The threads of a CUDA block as fibers of one thread of this processor, so that a kernel whose threads wait for each other is
// tested without a GPU: the same lines, barriers and exchanges within warps included. A fiber runs until it has to wait, then the
// next one does, first to last and last to first in turn, so that what no barrier separates happens in either order.
// It does not show every race, and it says nothing about speed.
#pragma once

#include <ucontext.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#define __device__
#define __shared__ static

namespace apex::fibers {

// Bytes; no power of two, or the tops of all stacks would share a few lines of the cache.
constexpr size_t STACK = 16 * 1024 + 320;
constexpr int WARP = 32;

struct Index {
    unsigned x;
};

// How many have come, and how often it has opened.
struct Barrier {
    int arrived = 0, opened = 0;
};

// A place to come back to, as the compiler's own setjmp keeps it: that of the C library takes three times as long, and its checks
// know one stack only.
using Mark = void* [5];

struct Fiber {
    Mark at;
    std::vector<unsigned char> stack = std::vector<unsigned char>(STACK);
    const Barrier* waits_for = nullptr;
    int opened = 0;  // how often that barrier had, when it came there
    bool started = false, finished = false;

    bool can_go_on() const { return !finished && (waits_for == nullptr || waits_for->opened != opened); }
};

struct Block {
    std::vector<Fiber> threads;
    std::vector<Barrier> warps;
    std::vector<uint32_t> shown[2];  // by each thread to its warp, in turns
    Barrier whole;
    int count = 0;  // of __syncthreads_count
    std::function<void()> work;
    Mark scheduler;
    ucontext_t home;
};

inline Index block_index, thread_index;
inline Block running;
alignas(16) inline unsigned char shared_memory[48 * 1024];

// A function must not jump by the compiler's longjmp and be a place to come back to.
[[gnu::noinline]] inline void back() { __builtin_longjmp(running.scheduler, 1); }
[[gnu::noinline]] inline void go_on(Fiber& fiber) { __builtin_longjmp(fiber.at, 1); }

[[gnu::noinline]] inline void wait_at(Barrier& barrier, int members) {
    Fiber& self = running.threads[thread_index.x];
    self.waits_for = &barrier;
    self.opened = barrier.opened;
    if (++barrier.arrived == members) {
        barrier.arrived = 0;
        ++barrier.opened;
    } else if (__builtin_setjmp(self.at) == 0) {
        back();
    }
}

inline void wait_for_block() { wait_at(running.whole, int(running.threads.size())); }
inline void wait_for_warp() { wait_at(running.warps[thread_index.x / WARP], WARP); }

inline void run_thread() {
    running.work();
    running.threads[thread_index.x].finished = true;
    back();
}

// Lets a thread go on until it waits or ends. Only its start is a switch of contexts; later a jump does, without system calls.
[[gnu::noinline]] inline void resume(unsigned index) {
    Fiber& fiber = running.threads[index];
    thread_index.x = index;
    if (__builtin_setjmp(running.scheduler) != 0) return;
    if (fiber.started) go_on(fiber);
    fiber.started = true;
    ucontext_t own;
    getcontext(&own);
    own.uc_stack.ss_sp = fiber.stack.data();
    own.uc_stack.ss_size = fiber.stack.size();
    own.uc_link = nullptr;
    makecontext(&own, run_thread, 0);
    swapcontext(&running.home, &own);
}

// Whether any thread could go on.
inline bool sweep(bool backward) {
    const unsigned count = unsigned(running.threads.size());
    bool moved = false;
    for (unsigned i = 0; i < count; ++i) {
        const unsigned index = backward ? count - 1 - i : i;
        if (!running.threads[index].can_go_on()) continue;
        resume(index);
        moved = true;
    }
    return moved;
}

inline void run_block(int index) {
    block_index.x = unsigned(index);
    for (Barrier& barrier : running.warps) barrier = {};
    running.whole = {};
    for (Fiber& fiber : running.threads) {
        fiber.waits_for = nullptr;
        fiber.started = fiber.finished = false;
    }
    for (bool backward = false; sweep(backward);) backward = !backward;
    for (const Fiber& fiber : running.threads) {
        if (fiber.finished) continue;
        fprintf(stderr, "block %d: some threads wait where others never come\n", index);
        abort();
    }
}

inline void run_blocks(int blocks, int threads, std::function<void()> work) {
    running.work = std::move(work);
    running.threads.resize(threads);
    running.warps.resize(threads / WARP);
    for (auto& shown : running.shown) shown.resize(threads);
    for (int i = 0; i < blocks; ++i) run_block(i);
}

// Shows a word to the warp; `look` makes of the 32 words what this thread wants to know. Who is done early shows its next word in
// the other place, and cannot come further.
template <class Look>
auto exchange(uint32_t word, const Look& look) {
    const unsigned warp = thread_index.x / WARP;
    uint32_t* shown = running.shown[running.warps[warp].opened % 2].data();
    shown[thread_index.x] = word;
    wait_for_warp();
    return look(shown + warp * WARP);
}

}  // namespace apex::fibers

// CUDA's words for it.
#define threadIdx apex::fibers::thread_index
#define blockIdx apex::fibers::block_index

inline void __syncthreads() { apex::fibers::wait_for_block(); }
inline void __syncwarp() { apex::fibers::wait_for_warp(); }

inline int __syncthreads_count(bool mine) {
    __syncthreads();
    apex::fibers::running.count = 0;
    __syncthreads();
    apex::fibers::running.count += mine;
    __syncthreads();
    return apex::fibers::running.count;
}

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffs(unsigned bits) { return __builtin_ffs(int(bits)); }
inline int min(int a, int b) { return a < b ? a : b; }

inline int atomicAdd(int* to, int value) {
    const int before = *to;
    *to += value;
    return before;
}

inline unsigned __ballot_sync(unsigned, bool mine) {
    return apex::fibers::exchange(mine, [](const uint32_t* words) {
        unsigned all = 0;
        for (int i = 0; i < apex::fibers::WARP; ++i) all |= words[i] << i;
        return all;
    });
}

inline bool __any_sync(unsigned who, bool mine) { return __ballot_sync(who, mine) != 0; }

template <class T>
T __shfl_sync(unsigned, T value, int lane) {
    static_assert(sizeof(T) == sizeof(uint32_t));
    uint32_t word;
    memcpy(&word, &value, sizeof word);
    word = apex::fibers::exchange(word, [=](const uint32_t* words) { return words[lane % apex::fibers::WARP]; });
    memcpy(&value, &word, sizeof word);
    return value;
}
