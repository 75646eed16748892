// Greedy suppression of up to 1024 sorted rows by one block: exactly what one thread would do row by row, 32 rows at a time.
#pragma once

#include "decode_nms/choose.h"

namespace apex {

struct Suppression {
    Box box[ROWS];
    float area[ROWS];
    int label[ROWS];
    // Of the 32 rows in hand: those that are left, and for each the rows before it that overlap it. Two, so that the next 32 can
    // be prepared while a slow warp still reads.
    unsigned left[2];
    unsigned before[2][WARP];
};

__device__ inline Row row_at(const Suppression& shared, int at) { return {shared.box[at], shared.area[at], shared.label[at]}; }

// Which of 32 rows are kept: `open` of them are left, `before` are the rows before this thread's one that overlap it.
// Each turn decides all that can be decided at once: a row is kept when no open row before it overlaps it.
__device__ inline unsigned kept_of(unsigned open, unsigned before) {
    const unsigned self = threadIdx.x % WARP;
    unsigned kept = 0;
    while (open != 0) {
        const bool mine = open >> self & 1u;
        const unsigned ready = __ballot_sync(ALL, mine && (before & open) == 0);
        const unsigned removed = __ballot_sync(ALL, mine && (before & ready) != 0);
        kept |= ready;
        open &= ~(ready | removed);
    }
    return kept;
}

// Prepares the rows tile..tile+31: warp w finds out about row w of them.
__device__ inline void prepare(Suppression& shared, int tile, int total, bool left, float iou) {
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, which = tile / WARP % 2;
    const bool both = lane < warp && tile + warp < total;
    const unsigned before = __ballot_sync(ALL, both && overlaps(row_at(shared, tile + lane), row_at(shared, tile + warp), iou));
    const unsigned open = __ballot_sync(ALL, left);
    if (lane == 0) shared.before[which][warp] = before;
    if (lane == 0 && warp == tile / WARP) shared.left[which] = open;
}

// Calls give(row, place) for every row that is kept, in order of place, until `most` are; returns how many. Thread i owns row i.
template <class Give>
__device__ int suppress(Suppression& shared, int total, int most, float iou, const Give& give) {
    const int self = threadIdx.x, warp = self / WARP, lane = self % WARP;
    const Row own = row_at(shared, self);
    bool left = self < total;
    int done = 0;
    for (int tile = 0; tile < total && done < most; tile += WARP) {
        prepare(shared, tile, total, left, iou);
        __syncthreads();
        const int which = tile / WARP % 2;
        const unsigned kept = kept_of(shared.left[which], shared.before[which][lane]);
        if (warp > tile / WARP) {
            for (unsigned rest = kept; rest != 0 && __any_sync(ALL, left); rest &= rest - 1u) {
                if (left && overlaps(own, row_at(shared, tile + __ffs(rest) - 1), iou)) left = false;
            }
        }
        const int place = done + __popc(kept & ((1u << lane) - 1u));
        if (warp == tile / WARP && (kept >> lane & 1u) && place < most) give(self, place);
        done += __popc(kept);
    }
    return min(done, most);
}

}  // namespace apex
