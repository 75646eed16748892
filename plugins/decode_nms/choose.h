// Who enters the suppression: of each level the best, then all of them in order; by one block, in shared memory.
#pragma once

#include "decode_nms/rows.h"

namespace apex {

constexpr int ROWS = 1024;      // that can enter the suppression; a block has a thread for each
constexpr int ROOM = 2 * ROWS;  // keys that are collected before the best of them are sorted out

struct Candidates {
    uint64_t room[ROOM];
    uint64_t chosen[ROWS];
    int count;  // of keys in `room`
};

// Sorts a power of two of keys, 64 to 2 * ROWS, the largest first: Batcher's bitonic sort. Waits for all threads first and last.
__device__ inline void sort_keys(uint64_t* keys, int size) {
    const int self = threadIdx.x;
    int last = size;
    for (int run = 2; run <= size; run *= 2) {
        for (int step = run / 2; step > 0; step /= 2) {
            // With steps up to 32, a warp keeps to 64 keys of its own.
            if (step > 32 || last > 32) __syncthreads();
            else __syncwarp();
            last = step;
            const int low = 2 * self - (self & (step - 1)), high = low + step;
            if (high >= size) continue;
            const uint64_t a = keys[low], b = keys[high];
            if ((a < b) == ((low & run) == 0)) keys[low] = b, keys[high] = a;
        }
    }
    __syncthreads();
}

// Sorts the first `count` keys; what lies behind them is lost.
__device__ inline void sort_first(uint64_t* keys, int count) {
    if (count <= 1) return;
    int size = 64;
    while (size < count) size *= 2;
    for (int i = count + int(threadIdx.x); i < size; i += ROWS) keys[i] = 0;
    sort_keys(keys, size);
}

// Adds the keys of a warp that are not 0 to the room.
__device__ inline void collect(Candidates& candidates, uint64_t key) {
    const unsigned who = __ballot_sync(ALL, key != 0), self = threadIdx.x % unsigned(WARP);
    if (who == 0) return;
    int at = 0;
    if (self == 0) at = atomicAdd(&candidates.count, __popc(who));
    at = __shfl_sync(ALL, at, 0) + __popc(who & ((1u << self) - 1u));
    if (key != 0) candidates.room[at] = key;
}

// Keeps the best `limit` of `count` keys in the room, sorted; returns the key that others have to exceed from now on.
__device__ inline uint64_t keep_best(Candidates& candidates, int count, int limit) {
    sort_first(candidates.room, count);
    if (threadIdx.x == 0) candidates.count = min(count, limit);
    const uint64_t least = count < limit ? 0 : candidates.room[limit - 1];
    __syncthreads();
    return least;
}

// The best `limit` of the anchors begin..end-1 into the room; returns how many.
template <class Source>
__device__ int choose_of_level(Candidates& candidates, const Source& source, int begin, int end, int limit, float threshold) {
    if (threadIdx.x == 0) candidates.count = 0;
    __syncthreads();
    uint64_t least = 0;
    for (int first = begin; first < end; first += Source::AHEAD * ROWS) {
        Best best[Source::AHEAD];
        APEX_UNROLL
        for (int i = 0; i < Source::AHEAD; ++i) {
            const int anchor = first + i * ROWS + int(threadIdx.x);
            best[i] = source(anchor < end ? anchor : -1);
        }
        APEX_UNROLL
        for (int i = 0; i < Source::AHEAD && first + i * ROWS < end; ++i) {
            const uint64_t key = entering_key(best[i].score, first + i * ROWS + int(threadIdx.x), threshold);
            collect(candidates, key > least ? key : 0);
            __syncthreads();
            const int count = candidates.count;
            __syncthreads();
            if (count > ROOM - ROWS) least = keep_best(candidates, count, limit);
        }
    }
    const int count = candidates.count;
    __syncthreads();
    keep_best(candidates, count, limit);
    return min(count, limit);
}

// The first anchor whose stride exceeds `stride`; strides ascend. Every thread looks at one place of what is left to search.
__device__ inline int first_above(const float* strides, int anchors, float stride) {
    int low = 0, high = anchors;
    while (low < high) {
        const int step = (high - low + ROWS - 1) / ROWS;
        const int at = low + int(threadIdx.x) * step;
        const int below = __syncthreads_count(at < high && strides[at] <= stride);
        high = min(high, low + below * step);
        if (below > 0) low += (below - 1) * step + 1;
    }
    return low;
}

// Fills `chosen` with the keys of all that enter, best first; returns how many.
template <class Source>
__device__ int choose(
    Candidates& candidates, const Source& source, const float* strides, int anchors, int limit, float threshold) {
    int total = 0, begin = 0;
    for (int level = 0; level < LEVELS; ++level) {
        const int end = level + 1 < LEVELS ? first_above(strides, anchors, stride_of(level)) : anchors;
        const int count = choose_of_level(candidates, source, begin, end, limit, threshold);
        for (int i = threadIdx.x; i < count; i += ROWS) candidates.chosen[total + i] = candidates.room[i];
        total += count;
        begin = end;
    }
    sort_first(candidates.chosen, total);
    return total;
}

}  // namespace apex
