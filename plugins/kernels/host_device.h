// What every kernel header leans on: functions that nvcc compiles for both sides and g++ for its own, and the types of elements.
// The small types are bits; mathematics is done in float. Where a GPU has an instruction that converts it is used; elsewhere the
// same is spelt out. The headers of CUDA's own small types would do too, but nvcc takes a second per architecture to read them.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define APEX_HD __host__ __device__
#define APEX_UNROLL _Pragma("unroll")
#else
#include <cstring>
#define APEX_HD
#define APEX_UNROLL
#endif

namespace apex {

struct f16 {
    uint16_t bits;
};
struct bf16 {
    uint16_t bits;
};
struct e4m3 {  // 4 bits of exponent, 3 of mantissa, no infinity; the largest number is 448
    uint8_t bits;
};

APEX_HD inline uint32_t bits_of(float value) {
#ifdef __CUDA_ARCH__
    return __float_as_uint(value);
#else
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
#endif
}

APEX_HD inline float float_of(uint32_t bits) {
#ifdef __CUDA_ARCH__
    return __uint_as_float(bits);
#else
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
#endif
}

// A float of the small format with `exponent` and `mantissa` bits, bias 2^(exponent-1) - 1, from the sign-less bits of it.
APEX_HD inline float widen(uint32_t magnitude, int exponent, int mantissa) {
    const int shift = 23 - mantissa;
    const float rebias = float_of(uint32_t(127 + 127 - ((1 << (exponent - 1)) - 1)) << 23);
    return float_of(magnitude << shift) * rebias;  // also right for subnormal numbers
}

// The nearest number of the small format, ties to even, from a finite float >= 0; what overflows is left to the caller.
APEX_HD inline uint32_t narrow(uint32_t magnitude, int exponent, int mantissa) {
    const int shift = 23 - mantissa;
    const int lowest = 127 - ((1 << (exponent - 1)) - 1) + 1;  // the biased exponent of the smallest normal number
    const int biased = int(magnitude >> 23);
    if (biased >= lowest) {
        const uint32_t odd = (magnitude >> shift) & 1u;
        const uint32_t rounded = magnitude + ((1u << (shift - 1)) - 1u) + odd;
        return (rounded >> shift) - (uint32_t(lowest - 1) << mantissa);
    }
    const int drop = shift + lowest - biased;
    if (drop > 24) return 0;
    const uint32_t whole = (magnitude & 0x7fffffu) | 0x800000u;
    const uint32_t odd = (whole >> drop) & 1u;
    return (whole + ((1u << (drop - 1)) - 1u) + odd) >> drop;
}

APEX_HD inline float to_float(float value) { return value; }

APEX_HD inline float to_float(f16 value) {
#ifdef __CUDA_ARCH__
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(value.bits));
    return wide;
#else
    const uint32_t sign = uint32_t(value.bits & 0x8000u) << 16, magnitude = value.bits & 0x7fffu;
    if (magnitude >= 0x7c00u) return float_of(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
    return float_of(sign | bits_of(widen(magnitude, 5, 10)));
#endif
}

APEX_HD inline float to_float(bf16 value) { return float_of(uint32_t(value.bits) << 16); }

APEX_HD inline float to_float(e4m3 value) {
    const uint32_t sign = uint32_t(value.bits & 0x80u) << 24, magnitude = value.bits & 0x7fu;
    if (magnitude == 0x7fu) return float_of(sign | 0x7fc00000u);
    return float_of(sign | bits_of(widen(magnitude, 4, 3)));
}

template <class T>
struct As;  // As<T>::from(float): the nearest T, ties to even

template <>
struct As<float> {
    APEX_HD static float from(float value) { return value; }
};

template <>
struct As<f16> {
    APEX_HD static f16 from(float value) {
#ifdef __CUDA_ARCH__
        f16 nearest;
        asm("cvt.rn.f16.f32 %0, %1;" : "=h"(nearest.bits) : "f"(value));
        return nearest;
#else
        const uint32_t sign = (bits_of(value) >> 16) & 0x8000u, magnitude = bits_of(value) & 0x7fffffffu;
        if (magnitude > 0x7f800000u) return f16{0x7fffu};
        const uint32_t rounded = magnitude >= 0x47800000u ? 0x7c00u : narrow(magnitude, 5, 10);  // from 65536 on: infinity
        return f16{uint16_t(sign | rounded)};
#endif
    }
};

template <>
struct As<bf16> {
    APEX_HD static bf16 from(float value) {
        const uint32_t bits = bits_of(value);
        if ((bits & 0x7fffffffu) > 0x7f800000u) return bf16{0x7fffu};
        return bf16{uint16_t((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
    }
};

template <>
struct As<e4m3> {  // saturates: what is beyond 448 becomes 448
    APEX_HD static e4m3 from(float value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
        uint16_t pair;
        asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(0.0f), "f"(value));
        return e4m3{uint8_t(pair)};
#else
        const uint32_t sign = (bits_of(value) >> 24) & 0x80u, magnitude = bits_of(value) & 0x7fffffffu;
        if (magnitude > 0x7f800000u) return e4m3{0x7fu};
        const uint32_t rounded = magnitude >= 0x43e00000u ? 0x7eu : narrow(magnitude, 4, 3);  // from 448 on: 448
        return e4m3{uint8_t(sign | (rounded > 0x7eu ? 0x7eu : rounded))};
#endif
    }
};

}  // namespace apex
