// TilePack: where each run of pixels comes from and what it becomes. One thread moves up to STEPS runs; the kernel calls these
// functions for its block and thread, the host face for all of them in turn.
//
// Tile, halo and the sides of the image are multiples of 8, so no border of a tile or of the image cuts a run of up to 8 pixels.
// Ids outside the grid read nothing that is not there: they name no tile, which is 0.
#pragma once

#include <type_traits>

#include "kernels/runs.h"

namespace apex {

struct PackSizes {
    int tiles;  // K, of each image
    int channels, height, width;
    int tile, halo;
    int run;  // pixels moved together
};

struct Corner {
    int64_t top, left;
};

// The first pixel of tile `id` with its halo; negative where the halo begins outside the image, as all of it does for no tile.
APEX_HD inline Corner tile_corner(int64_t id, const PackSizes& s) {
    const int64_t cols = s.width / s.tile, row = id / cols;
    if (id < 0 || row >= s.height / s.tile) return {s.height, s.width};
    return {row * s.tile - s.halo, (id - row * cols) * s.tile - s.halo};
}

APEX_HD inline bool is_inside(int64_t y, int64_t x, const PackSizes& s) {
    return y >= 0 && y < s.height && x >= 0 && x < s.width;
}

// A pixel in the type of the output; 8-bit floats hold value / scale.
template <class Out, class In>
APEX_HD inline Out packed(In value, float scale) {
    if constexpr (std::is_same_v<In, Out>) {
        return value;
    } else if constexpr (std::is_same_v<Out, e4m3>) {
        return As<Out>::from(to_float(value) / scale);
    } else {
        return As<Out>::from(to_float(value));
    }
}

// image [B,C,H,W] -> tiles [B,K,C,P,P]. A block's work is part of one plane P x P.
template <class In, class Out, int N>
APEX_HD inline void pack_runs(int block, int thread, const In* image, const int64_t* ids, const PackSizes& s, float scale, Out* tiles) {
    const int side = s.tile + 2 * s.halo, row_runs = side / N, runs = side * row_runs, chunks = blocks_for(runs);
    const int64_t plane = block / chunks, place = plane / s.channels, b = place / s.tiles;
    const In* source = image + (b * s.channels + plane % s.channels) * s.height * s.width;
    Out* target = tiles + plane * side * side;
    const Corner corner = tile_corner(ids[place], s);
    APEX_UNROLL
    for (int step = 0; step < STEPS; ++step) {
        const int run = run_of(block % chunks, step, thread);
        if (run >= runs) return;
        const int64_t y = corner.top + run / row_runs, x = corner.left + run % row_runs * N;
        Run<Out, N> out{};
        if (is_inside(y, x, s)) {
            const Run<In, N> in = load_run<In, N>(source + y * s.width + x);
            APEX_UNROLL
            for (int i = 0; i < N; ++i) out.at[i] = packed<Out>(in.at[i], scale);
        }
        store_run<Out, N>(target + int64_t(run) * N, out);
    }
}

template <class In, class Out>
APEX_HD inline void pack_thread(int block, int thread, const In* image, const int64_t* ids, const PackSizes& s, float scale, Out* tiles) {
    constexpr int N = sizeof(Out) == 4 ? 4 : 8;
    if (s.tiles == 0) return;  // TensorRT cannot leave a launch out
    if (s.run == N) {
        pack_runs<In, Out, N>(block, thread, image, ids, s, scale, tiles);
    } else {
        pack_runs<In, Out, 1>(block, thread, image, ids, s, scale, tiles);
    }
}

struct Normalise {  // (value - mean) * factor, per channel
    float mean[3], factor[3];
};

// image uint8 [B,H,W,3] -> tiles [B,K,3,P,P] of normalised pixels. A block's work is part of one tile, all three planes of it.
template <class Out, int N>
APEX_HD inline void pack_pixel_runs(int block, int thread, const uint8_t* image, const int64_t* ids, const PackSizes& s,
                                    const Normalise& how, float scale, Out* tiles) {
    const int side = s.tile + 2 * s.halo, row_runs = side / N, runs = side * row_runs, chunks = blocks_for(runs);
    const int64_t place = block / chunks, b = place / s.tiles, area = int64_t(side) * side;
    const uint8_t* source = image + b * s.height * s.width * 3;
    Out* target = tiles + place * 3 * area;
    const Corner corner = tile_corner(ids[place], s);
    for (int step = 0; step < STEPS; ++step) {
        const int run = run_of(block % chunks, step, thread);
        if (run >= runs) return;
        const int64_t y = corner.top + run / row_runs, x = corner.left + run % row_runs * N;
        Run<Out, N> red{}, green{}, blue{};
        if (is_inside(y, x, s)) {
            const uint8_t* pixels = source + (y * s.width + x) * 3;
            const Run<uint8_t, N> in[3] = {
                load_run<uint8_t, N>(pixels), load_run<uint8_t, N>(pixels + N), load_run<uint8_t, N>(pixels + 2 * N)};
            APEX_UNROLL
            for (int i = 0; i < N; ++i) {
                const int r = 3 * i, g = r + 1, b = r + 2;
                red.at[i] = packed<Out>((float(in[r / N].at[r % N]) - how.mean[0]) * how.factor[0], scale);
                green.at[i] = packed<Out>((float(in[g / N].at[g % N]) - how.mean[1]) * how.factor[1], scale);
                blue.at[i] = packed<Out>((float(in[b / N].at[b % N]) - how.mean[2]) * how.factor[2], scale);
            }
        }
        store_run<Out, N>(target + int64_t(run) * N, red);
        store_run<Out, N>(target + area + int64_t(run) * N, green);
        store_run<Out, N>(target + 2 * area + int64_t(run) * N, blue);
    }
}

template <class Out>
APEX_HD inline void pack_pixels_thread(int block, int thread, const uint8_t* image, const int64_t* ids, const PackSizes& s,
                                       const Normalise& how, float scale, Out* tiles) {
    if (s.run == 8) {
        pack_pixel_runs<Out, 8>(block, thread, image, ids, s, how, scale, tiles);
    } else {
        pack_pixel_runs<Out, 1>(block, thread, image, ids, s, how, scale, tiles);
    }
}

}  // namespace apex
