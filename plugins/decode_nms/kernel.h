// DecodeNMS and the box decode: every comparison and every rounding, for the kernels and for the host face alike.
// The result is a list of decisions, so every number must be the same everywhere, to the last bit: products and sums are rounded
// one by one (no fused multiply-add; the host face is compiled with -ffp-contract=off), and the anchor decides between equals.
#pragma once

#include "kernels/host_device.h"

namespace apex {

constexpr int LEVELS = 3;
constexpr float LOWEST = -3.402823466e38f;  // no score is below it

// 8, 16, 32 pixels.
APEX_HD inline float stride_of(int level) { return float(8 << level); }

APEX_HD inline float times(float a, float b) {
#ifdef __CUDA_ARCH__
    return __fmul_rn(a, b);
#else
    return a * b;
#endif
}

APEX_HD inline float plus(float a, float b) {
#ifdef __CUDA_ARCH__
    return __fadd_rn(a, b);
#else
    return a + b;
#endif
}

APEX_HD inline float larger(float a, float b) { return a > b ? a : b; }
APEX_HD inline float smaller(float a, float b) { return a < b ? a : b; }

// The best class of an anchor and its score; label -1: no class seen yet.
struct alignas(8) Best {
    float score;
    int label;
};

APEX_HD inline Best nothing() { return {LOWEST, -1}; }

// The higher score, and of equals the lower class; any class is better than none.
APEX_HD inline Best better(Best a, Best b) {
    const bool second = b.score > a.score || (b.score == a.score && uint32_t(b.label) < uint32_t(a.label));
    return second ? b : a;
}

// How many threads read a row of scores together, a power of two.
APEX_HD inline int lanes_of(int classes) { return classes <= 4 ? 1 : classes <= 8 ? 2 : 4; }

// The order of candidates as a number: a larger key goes first, which is the higher score, and of equals the lower anchor.
// Scores that enter are > 0, and such floats are ordered as their bits are. 0 is the key of no candidate.
APEX_HD inline uint64_t key_of(float score, int anchor) {
    return uint64_t(bits_of(score)) << 32 | (0xffffffffu - uint32_t(anchor));
}

APEX_HD inline float score_of(uint64_t key) { return float_of(uint32_t(key >> 32)); }

APEX_HD inline int anchor_of(uint64_t key) { return int(0xffffffffu - uint32_t(key)); }

// The key of an anchor where its score exceeds `threshold`, which is >= 0; else 0.
APEX_HD inline uint64_t entering_key(float score, int anchor, float threshold) {
    return score > threshold ? key_of(score, anchor) : 0;
}

struct alignas(16) Box {
    float x1, y1, x2, y2;
};

// Distances in strides (left, top, right, bottom) to corners in pixels.
APEX_HD inline Box decode_box(const float* ltrb, const float* centre, float stride) {
    return {
        plus(centre[0], -times(ltrb[0], stride)),
        plus(centre[1], -times(ltrb[1], stride)),
        plus(centre[0], times(ltrb[2], stride)),
        plus(centre[1], times(ltrb[3], stride)),
    };
}

APEX_HD inline float area_of(const Box& box) { return times(plus(box.x2, -box.x1), plus(box.y2, -box.y1)); }

// A candidate in the suppression.
struct Row {
    Box box;
    float area;
    int label;
};

// Whether one row, kept, removes the other: one class, and intersection > iou * union, so that two empty boxes do not overlap.
// Symmetric, also in its rounding.
APEX_HD inline bool overlaps(const Row& a, const Row& b, float iou) {
    if (a.label != b.label) return false;
    const float wide = larger(plus(smaller(a.box.x2, b.box.x2), -larger(a.box.x1, b.box.x1)), 0.0f);
    const float tall = larger(plus(smaller(a.box.y2, b.box.y2), -larger(a.box.y1, b.box.y1)), 0.0f);
    const float shared = times(wide, tall);
    return shared > times(iou, plus(plus(a.area, b.area), -shared));
}

}  // namespace apex
