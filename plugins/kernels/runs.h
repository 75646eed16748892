// Runs of neighbouring elements, moved together. How many make a run is decided beside the grid (launch.py): what fills 16 bytes,
// fewer where a row of the tile or an address is not a multiple of that.
#pragma once

#include "kernels/host_device.h"

namespace apex {

constexpr int THREADS = 256;  // of a block, in the kernels that move runs
constexpr int STEPS = 4;      // runs of a thread, THREADS apart, so that several loads are under way

template <class T, int N>
struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Run {
    T at[N];
};

template <class T, int N>
APEX_HD inline Run<T, N> load_run(const T* address) {
    return *reinterpret_cast<const Run<T, N>*>(address);
}

template <class T, int N>
APEX_HD inline void store_run(T* address, const Run<T, N>& run) {
    *reinterpret_cast<Run<T, N>*>(address) = run;
}

APEX_HD inline int blocks_for(int runs) { return (runs + THREADS * STEPS - 1) / (THREADS * STEPS); }

// The run that a thread moves at a step, among the runs of its part of the work; `chunk` counts the blocks of that part.
APEX_HD inline int run_of(int chunk, int step, int thread) { return (chunk * STEPS + step) * THREADS + thread; }

}  // namespace apex

// An entry point of which every thread makes one CALL, an expression of `block` and `thread`, the further arguments being its
// parameters: a kernel under nvcc; elsewhere a function of the same name that does the work of `blocks` blocks, one by one.
#ifdef __CUDACC__
#define APEX_ENTRY(NAME, CALL, ...)                                                     \
    extern "C" __global__ void __launch_bounds__(apex::THREADS) NAME(__VA_ARGS__) {     \
        const int block = blockIdx.x, thread = threadIdx.x;                             \
        CALL;                                                                           \
    }
#else
#define APEX_ENTRY(NAME, CALL, ...)                                                     \
    extern "C" void NAME(__VA_ARGS__, int blocks) {                                     \
        for (int block = 0; block < blocks; ++block)                                    \
            for (int thread = 0; thread < apex::THREADS; ++thread) CALL;                \
    }
#endif
