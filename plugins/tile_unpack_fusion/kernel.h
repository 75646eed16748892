// TileUnpackFusion: the cells that the tiles cover are blended, and no other is touched. One thread blends up to STEPS runs of cells.
//
// `base` and `merged` may be one map: a thread reads its cells before it writes them, and no two tiles of an image share a cell.
// Where they are two, the other cells of `merged` must hold those of `base` already. Ids outside the grid are left out.
#pragma once

#include "kernels/runs.h"

namespace apex {

struct UnpackSizes {
    int tiles;  // K, of each image
    int channels, height, width;
    int cells;  // n, of a tile a side
    int run;    // cells blended together; divides n
};

// In float whatever the type of the map, and rounded once.
template <class T>
APEX_HD inline T blended(T base, T tile, T alpha) {
    const float before = to_float(base);
    return As<T>::from(before + to_float(alpha) * (to_float(tile) - before));
}

// base [B,C,h,w], tiles [B,K,C,n,n], alpha [B,K,1,n,n] -> merged [B,C,h,w]. A block's work is part of one tile, all channels.
template <class T, int N>
APEX_HD inline void unpack_runs(int block, int thread, const T* base, const T* tiles, const int64_t* ids, const T* alpha,
                                const UnpackSizes& s, T* merged) {
    const int row_runs = s.cells / N, area = s.cells * s.cells, runs = s.channels * s.cells * row_runs, chunks = blocks_for(runs);
    const int64_t place = block / chunks, b = place / s.tiles, id = ids[place], cols = s.width / s.cells;
    if (id < 0 || id >= s.height / s.cells * cols) return;
    const int64_t top = id / cols * s.cells, left = id % cols * s.cells;
    APEX_UNROLL
    for (int step = 0; step < STEPS; ++step) {
        const int run = run_of(block % chunks, step, thread);
        if (run >= runs) return;
        const int line = run / row_runs, x = run % row_runs * N, channel = line / s.cells, y = line % s.cells;
        const int64_t cell = ((b * s.channels + channel) * s.height + top + y) * s.width + left + x;
        const Run<T, N> before = load_run<T, N>(base + cell);
        const Run<T, N> seen = load_run<T, N>(tiles + place * s.channels * area + int64_t(run) * N);
        const Run<T, N> gate = load_run<T, N>(alpha + place * area + y * s.cells + x);
        Run<T, N> after;
        APEX_UNROLL
        for (int i = 0; i < N; ++i) after.at[i] = blended(before.at[i], seen.at[i], gate.at[i]);
        store_run<T, N>(merged + cell, after);
    }
}

template <class T, int N = int(16 / sizeof(T))>
APEX_HD inline void unpack_thread(int block, int thread, const T* base, const T* tiles, const int64_t* ids, const T* alpha,
                                  const UnpackSizes& s, T* merged) {
    if constexpr (N > 1) {
        if (s.run < N) return unpack_thread<T, N / 2>(block, thread, base, tiles, ids, alpha, s, merged);
    }
    unpack_runs<T, N>(block, thread, base, tiles, ids, alpha, s, merged);
}

}  // namespace apex
