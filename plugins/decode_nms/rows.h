// The best class of every anchor, on the GPU: a warp reads the rows of its 32 anchors, a few neighbouring threads per row.
#pragma once

#include "decode_nms/kernel.h"
#include "kernels/blocks.h"
#include "kernels/runs.h"

namespace apex {

// The best of the classes that fall to thread `lane` of `lanes`; 16 bytes at a time where rows are `wide`, multiples of that.
template <class T>
__device__ Best best_in_row(const T* row, int classes, int lane, int lanes, bool wide) {
    using Wide = Run<T, 16 / sizeof(T)>;
    constexpr int COUNT = 16 / sizeof(T);
    Best best = nothing();
    if (wide) {
        const Wide* quads = reinterpret_cast<const Wide*>(row);
        APEX_UNROLL_BY(4)
        for (int i = lane; i < classes / COUNT; i += lanes) {
            const Wide part = quads[i];
            APEX_UNROLL
            for (int j = 0; j < COUNT; ++j) best = better(best, {to_float(part.at[j]), i * COUNT + j});
        }
    } else {
        APEX_UNROLL_BY(4)
        for (int i = lane; i < classes; i += lanes) best = better(best, {to_float(row[i]), i});
    }
    return best;
}

__device__ inline Best from_thread(Best best, int thread) {
    return {__shfl_sync(ALL, best.score, thread), __shfl_sync(ALL, best.label, thread)};
}

// The scores of one image, as a source of the best class; every thread of a warp asks for an anchor of its own, < 0 for none.
template <class T>
struct Scores {
    static constexpr int AHEAD = 1;  // questions that are worth asking at once
    const T* rows;
    int classes;
    bool wide;

    __device__ Best operator()(int anchor) const {
        const int lanes = lanes_of(classes), groups = WARP / lanes, self = threadIdx.x % WARP;
        Best mine = nothing();
        for (int round = 0; round < lanes; ++round) {  // in each, as many rows are read as there are groups of `lanes` threads
            const int wanted = __shfl_sync(ALL, anchor, round * groups + self / lanes);
            Best best = nothing();
            if (wanted >= 0) best = best_in_row(rows + (long long)wanted * classes, classes, self % lanes, lanes, wide);
            for (int offset = lanes / 2; offset > 0; offset /= 2) best = better(best, from_thread(best, self ^ offset));
            const Best found = from_thread(best, self % groups * lanes);
            if (self / groups == round) mine = found;
        }
        return mine;
    }
};

// The same, found by an earlier kernel.
struct Found {
    static constexpr int AHEAD = 4;
    const Best* best;

    __device__ Best operator()(int anchor) const { return anchor < 0 ? nothing() : best[anchor]; }
};

}  // namespace apex
