// Kernels whose threads work together: what they need of CUDA, and how to declare them so that they also run on this processor.
#pragma once

#ifndef __CUDACC__
#include "kernels/fibers.h"
#endif

#include "kernels/host_device.h"

namespace apex {

constexpr int WARP = 32;
constexpr unsigned ALL = 0xffffffffu;  // the threads of a warp

}  // namespace apex

// An entry point for blocks of SIZE threads, of which a multiprocessor must be able to hold AT_LEAST. CALL is what every thread
// does; the further arguments are its parameters. A kernel under nvcc; elsewhere a function of that name for `blocks` blocks.
#ifdef __CUDACC__
#define APEX_BLOCK_ENTRY(NAME, SIZE, AT_LEAST, CALL, ...) \
    extern "C" __global__ void __launch_bounds__(SIZE, AT_LEAST) NAME(__VA_ARGS__) { CALL; }
#define APEX_SHARED_MEMORY(T, NAME) extern __shared__ T NAME[]
#define APEX_PRAGMA(WORDS) _Pragma(#WORDS)
#define APEX_UNROLL_BY(N) APEX_PRAGMA(unroll N)
#else
#define APEX_UNROLL_BY(N)
#define APEX_BLOCK_ENTRY(NAME, SIZE, AT_LEAST, CALL, ...)   \
    extern "C" void NAME(__VA_ARGS__, int blocks) {         \
        apex::fibers::run_blocks(blocks, SIZE, [=] { CALL; }); \
    }
#define APEX_SHARED_MEMORY(T, NAME) T* NAME = reinterpret_cast<T*>(apex::fibers::shared_memory)
#endif
