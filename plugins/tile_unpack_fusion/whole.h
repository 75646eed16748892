// TileUnpackFusion on a map of its own: every cell of `merged` is written, blended where a tile was chosen and copied elsewhere, in
// one launch and with one look at `base`. For TensorRT, whose ahead-of-time plugins can neither copy first nor work in place.
#pragma once

#include "tile_unpack_fusion/kernel.h"

namespace apex {

// Which of the K chosen tiles of an image is tile `id`, or -1. The threads of a block look together.
APEX_HD inline int chosen_as(const int64_t* ids, int tiles, int id, int thread) {
#ifdef __CUDA_ARCH__
    __shared__ int found;
    if (thread == 0) found = -1;
    __syncthreads();
    for (int k = thread; k < tiles; k += THREADS) {
        if (ids[k] == id) found = k;  // an image does not name a tile twice
    }
    __syncthreads();
    return found;
#else
    (void)thread;
    for (int k = 0; k < tiles; ++k) {
        if (ids[k] == id) return k;
    }
    return -1;
#endif
}

template <class T, int N>
APEX_HD inline void copy_runs(int chunk, int thread, int image, int id, const T* base, const UnpackSizes& s, T* merged) {
    const int row_runs = s.cells / N, runs = s.channels * s.cells * row_runs, cols = s.width / s.cells;
    const int64_t top = id / cols * s.cells, left = id % cols * s.cells;
    APEX_UNROLL
    for (int step = 0; step < STEPS; ++step) {
        const int run = run_of(chunk, step, thread);
        if (run >= runs) return;
        const int line = run / row_runs, x = run % row_runs * N, channel = line / s.cells, y = line % s.cells;
        const int64_t cell = ((int64_t(image) * s.channels + channel) * s.height + top + y) * s.width + left + x;
        store_run<T, N>(merged + cell, load_run<T, N>(base + cell));
    }
}

// A block's work is part of one tile of the grid, chosen or not, all channels.
template <class T, int N = int(16 / sizeof(T))>
APEX_HD inline void whole_thread(int block, int thread, const T* base, const T* tiles, const int64_t* ids, const T* alpha,
                                 const UnpackSizes& s, T* merged) {
    if constexpr (N > 1) {
        if (s.run < N) return whole_thread<T, N / 2>(block, thread, base, tiles, ids, alpha, s, merged);
    }
    const int chunks = blocks_for(s.channels * s.cells * (s.cells / N)), count = s.height / s.cells * (s.width / s.cells);
    const int image = block / chunks / count, id = block / chunks % count, chunk = block % chunks;
    const int k = chosen_as(ids + int64_t(image) * s.tiles, s.tiles, id, thread);
    if (k < 0) {
        copy_runs<T, N>(chunk, thread, image, id, base, s, merged);
    } else {
        unpack_runs<T, N>((image * s.tiles + k) * chunks + chunk, thread, base, tiles, ids, alpha, s, merged);
    }
}

}  // namespace apex
