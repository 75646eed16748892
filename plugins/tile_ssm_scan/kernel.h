// TileSSMScan: the mathematics of one token, and who computes which part of it, for the kernels and for the host face alike.
// The state of a head is S x P numbers. A lane holds STATES of the S numbers of one channel p; the parts of y that the lanes of a
// channel find are added up in their order. Everything is computed in float.
#pragma once

#include <cmath>

#include "kernels/host_device.h"

namespace apex {

constexpr int STATES = 4;  // numbers of the state in one lane

struct alignas(16) Four {
    float at[STATES];
};

// What a token does to the whole state: a = exp(-exp(A) dt), in (0, 1], and dt itself.
struct alignas(8) Step {
    float decay;
    float dt;
};

// The token that is number `step` of the scan.
APEX_HD inline int token_of(int step, int tokens, bool reverse) { return reverse ? tokens - 1 - step : step; }

APEX_HD inline float rate_of(float a) { return std::exp(a); }

APEX_HD inline Step step_of(float rate, float dt) { return {std::exp(-rate * dt), dt}; }

// One token in one lane: h = a h + dt B x; returns this lane's part of C h, and `skip` x with it (D in the first lane, else 0).
APEX_HD inline float advance(Four& state, const Four& b, const Four& c, Step step, float x, float skip) {
    const float drive = step.dt * x;
    float y = skip * x;
    APEX_UNROLL
    for (int i = 0; i < STATES; ++i) {
        state.at[i] = step.decay * state.at[i] + b.at[i] * drive;
        y += c.at[i] * state.at[i];
    }
    return y;
}

}  // namespace apex
