// TileSSMScan in linear time: a block takes one head of one image and a slice of its channels, in one direction.
// Half of its threads scan, with the state in registers; the other half brings the next chunk of tokens into shared memory and
// the results of the last one out of it, so that the scan, which is a chain, never waits for memory.
#include "kernels/blocks.h"
#include "kernels/runs.h"
#include "tile_ssm_scan/kernel.h"

namespace apex {
namespace {

constexpr int SCANNERS = THREADS / 2;
constexpr int IN_FLIGHT = 4;  // loads that a staging thread has under way
constexpr int BATCH = 4;      // tokens that a scanning thread loads at once; a chunk is a multiple of it

template <class T>
using Quad = Run<T, STATES>;

// One direction of the op, and how it is cut (launch.py): `slice` channels in a block, a multiple of STATES; `chunk` tokens at a
// time, a multiple of BATCH; `aligned` where every row can be read and written in quads.
template <class T>
struct Scan {
    const T *x, *dt, *a, *b, *c, *d;
    T* y;
    int tokens, heads, channels, states, slice, chunk, aligned;
    bool reverse;
};

// What a block works on: its image, head and first channel. A channel has `lanes`; the channels are so many `quads`.
struct Place {
    int batch, head, channel, lanes, quads;
};

// The shared memory of one chunk. There are two, for chunks of even and of odd number.
struct Chunk {
    Four* item;  // B of every token [chunk][lanes], then C, then x [chunk][quads]
    Four* part;  // of y: [chunk][lanes][quads]
    Step* step;  // [chunk]
};

__device__ Chunk chunk_at(int which, int chunk, const Place& place) {
    APEX_SHARED_MEMORY(Four, memory);
    const int items = chunk * (2 * place.lanes + place.quads), parts = chunk * place.lanes * place.quads;
    Four* own = memory + which * (items + parts + (chunk + 1) / 2);
    return {own, own + items, reinterpret_cast<Step*>(own + items + parts)};
}

template <class T>
__device__ long long row_of(const Scan<T>& scan, const Place& place, int step) {
    return static_cast<long long>(place.batch) * scan.tokens + token_of(step, scan.tokens, scan.reverse);
}

// Where x or y of a step begins for this block.
template <class T>
__device__ long long channel_offset(const Scan<T>& scan, const Place& place, int step) {
    return (row_of(scan, place, step) * scan.heads + place.head) * scan.channels + place.channel;
}

// Four numbers of a row, of which it has `valid`; zeros behind them.
template <class T>
__device__ Quad<T> load_quad(const T* from, int valid, bool aligned) {
    if (aligned && valid >= STATES) return load_run<T, STATES>(from);
    Quad<T> out = {};
    APEX_UNROLL
    for (int i = 0; i < STATES; ++i) {
        if (i < valid) out.at[i] = from[i];
    }
    return out;
}

// Number `item` of a chunk that begins with `first`; zeros beyond the last token, state or channel.
template <class T>
__device__ Quad<T> fetch(const Scan<T>& scan, const Place& place, int item, int first) {
    const int half = scan.chunk * place.lanes;
    const bool is_x = item >= 2 * half;
    const unsigned width = is_x ? place.quads : place.lanes;
    const unsigned local = item - (is_x ? 2 * half : item >= half ? half : 0);
    const int row = local / width, at = local % width * STATES, step = first + row;
    if (row >= scan.chunk || step >= scan.tokens) return {};
    const T* from = is_x ? scan.x + channel_offset(scan, place, step)
                         : (item < half ? scan.b : scan.c) + row_of(scan, place, step) * scan.states;
    const int valid = is_x ? scan.channels - place.channel : scan.states;
    return load_quad(from + at, valid - at, scan.aligned);
}

template <class T>
__device__ Four widened(const Quad<T>& quad) {
    Four out;
    APEX_UNROLL
    for (int i = 0; i < STATES; ++i) out.at[i] = to_float(quad.at[i]);
    return out;
}

// Thread `self` of those that stage brings its share of the chunk that begins with `first` into shared memory.
template <class T>
__device__ void stage(const Chunk& chunk, const Scan<T>& scan, const Place& place, int first, int self) {
    const int items = scan.chunk * (2 * place.lanes + place.quads);
    const bool has_step = self < scan.chunk && first + self < scan.tokens;
    const float dt = has_step ? to_float(scan.dt[row_of(scan, place, first + self) * scan.heads + place.head]) : 0.0f;
    for (int item = self; item < items; item += IN_FLIGHT * SCANNERS) {
        Quad<T> taken[IN_FLIGHT];
        APEX_UNROLL
        for (int i = 0; i < IN_FLIGHT; ++i) taken[i] = fetch(scan, place, item + i * SCANNERS, first);
        APEX_UNROLL
        for (int i = 0; i < IN_FLIGHT; ++i) {
            if (item + i * SCANNERS < items) chunk.item[item + i * SCANNERS] = widened(taken[i]);
        }
    }
    if (self < scan.chunk) chunk.step[self] = step_of(rate_of(to_float(scan.a[place.head])), dt);
}

template <class T>
__device__ void store_quad(T* to, const Four& value, int valid, bool aligned) {
    Quad<T> out;
    APEX_UNROLL
    for (int i = 0; i < STATES; ++i) out.at[i] = As<T>::from(value.at[i]);
    if (aligned && valid >= STATES) return store_run<T, STATES>(to, out);
    APEX_UNROLL
    for (int i = 0; i < STATES; ++i) {
        if (i < valid) to[i] = out.at[i];
    }
}

// Thread `self` of those that stage adds up and writes its share of the results of the chunk that begins with `first`.
template <class T>
__device__ void drain(const Chunk& chunk, const Scan<T>& scan, const Place& place, int first, int self) {
    for (unsigned item = self; item < unsigned(scan.chunk * place.quads); item += SCANNERS) {
        const int row = int(item / place.quads), quad = int(item % place.quads), at = quad * STATES;
        const int valid = scan.channels - place.channel - at;
        if (first + row >= scan.tokens || valid <= 0) continue;
        const Four* part = chunk.part + row * place.lanes * place.quads + quad;
        Four sum = part[0];
        for (int lane = 1; lane < place.lanes; ++lane) {
            APEX_UNROLL
            for (int i = 0; i < STATES; ++i) sum.at[i] += part[lane * place.quads].at[i];
        }
        store_quad(scan.y + channel_offset(scan, place, first + row) + at, sum, valid, scan.aligned);
    }
}

// The scanning half of the block takes the tokens of a chunk: thread `self` is lane self / slice of channel self % slice.
// All of a batch is loaded before any of it is stored, because a store to shared memory holds up the loads behind it.
__device__ void scan_chunk(const Chunk& chunk, Four& state, const Place& place, float skip, int size, int tokens, int self) {
    const int slice = place.quads * STATES, lanes = place.lanes;
    const Four *b = chunk.item + self / unsigned(slice), *c = b + size * lanes;
    const float* x = reinterpret_cast<const float*>(chunk.item + 2 * size * lanes) + self % unsigned(slice);
    float* part = reinterpret_cast<float*>(chunk.part) + self;
    for (int first = 0; first < tokens; first += BATCH) {
        Four b_of[BATCH], c_of[BATCH];
        Step step[BATCH];
        float value[BATCH];
        APEX_UNROLL
        for (int i = 0; i < BATCH; ++i) {
            b_of[i] = b[(first + i) * lanes];
            c_of[i] = c[(first + i) * lanes];
            step[i] = chunk.step[first + i];
            value[i] = x[(first + i) * slice];
        }
        APEX_UNROLL
        for (int i = 0; i < BATCH; ++i) value[i] = advance(state, b_of[i], c_of[i], step[i], value[i], skip);
        APEX_UNROLL
        for (int i = 0; i < BATCH; ++i) part[(first + i) * lanes * slice] = value[i];
    }
}

template <class T>
__device__ Place place_of(const Scan<T>& scan, unsigned block) {
    const unsigned slices = unsigned(scan.channels + scan.slice - 1) / unsigned(scan.slice), head = block / slices;
    Place place;
    place.batch = int(head / unsigned(scan.heads));
    place.head = int(head % unsigned(scan.heads));
    place.channel = int(block % slices) * scan.slice;
    place.lanes = (scan.states + STATES - 1) / STATES;
    place.quads = scan.slice / STATES;
    return place;
}

// Chunk by chunk; while one is scanned, the next comes in and the last goes out.
template <class T>
__device__ void run(const Scan<T>& scan, unsigned block) {
    const Place place = place_of(scan, block);
    const int self = static_cast<int>(threadIdx.x), stager = self - SCANNERS;
    const float skip = self < scan.slice ? to_float(scan.d[place.head]) : 0.0f;
    Four state = {};
    int odd = 0;
    for (int first = -scan.chunk; first < scan.tokens + scan.chunk; first += scan.chunk, odd = 1 - odd) {
        const Chunk other = chunk_at(1 - odd, scan.chunk, place);
        if (stager >= 0) {
            if (first > 0) drain(other, scan, place, first - scan.chunk, stager);
            if (first + scan.chunk < scan.tokens) stage(other, scan, place, first + scan.chunk, stager);
        } else if (self < place.lanes * scan.slice && first >= 0 && first < scan.tokens) {
            const int tokens = min(scan.chunk, scan.tokens - first);
            scan_chunk(chunk_at(odd, scan.chunk, place), state, place, skip, scan.chunk, tokens, self);
        }
        __syncthreads();
    }
}

}  // namespace
}  // namespace apex

#define SIZES int tokens, int heads, int channels, int states, int slice, int chunk, int aligned
#define OF_SIZES tokens, heads, channels, states, slice, chunk, aligned

#define ONE_DIRECTION(NAME, T)                                                                                           \
    APEX_BLOCK_ENTRY(NAME, apex::THREADS, 2,                                                                             \
                     (apex::run<T>({x, dt, a, b, c, d, y, OF_SIZES, reverse != 0}, blockIdx.x)), const T *x, const T *dt, \
                     const T *a, const T *b, const T *c, const T *d, SIZES, int reverse, T *y)

// Blocks of even number scan forward, those of odd number backward, with parameters of their own.
#define BOTH_DIRECTIONS(NAME, T)                                                                                            \
    APEX_BLOCK_ENTRY(NAME, apex::THREADS, 2,                                                                                \
                     (apex::run<T>(blockIdx.x % 2 == 0                                                                      \
                                       ? apex::Scan<T>{x, dt, a, b, c, d, y, OF_SIZES, false}                               \
                                       : apex::Scan<T>{x, dt_back, a_back, b_back, c_back, d_back, y_back, OF_SIZES, true}, \
                                   blockIdx.x / 2)),                                                                        \
                     const T *x, const T *dt, const T *a, const T *b, const T *c, const T *d, const T *dt_back,             \
                     const T *a_back, const T *b_back, const T *c_back, const T *d_back, SIZES, T *y, T *y_back)

ONE_DIRECTION(apex_tile_ssm_scan_f32, float)
ONE_DIRECTION(apex_tile_ssm_scan_f16, apex::f16)
ONE_DIRECTION(apex_tile_ssm_scan_bf16, apex::bf16)
BOTH_DIRECTIONS(apex_tile_ssm_scan_both_f32, float)
BOTH_DIRECTIONS(apex_tile_ssm_scan_both_f16, apex::f16)
BOTH_DIRECTIONS(apex_tile_ssm_scan_both_bf16, apex::bf16)
