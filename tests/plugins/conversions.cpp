// Counts the floats that host_device.h rounds to another number than CUDA's own headers do.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cstdio>
#include <cstring>

#include "kernels/host_device.h"

static long wrong = 0;

static void compare(const char* type, unsigned bits, unsigned ours, unsigned theirs, bool nan) {
    if (ours == theirs || nan) return;
    if (++wrong < 20) printf("%s of %08x: %x, not %x\n", type, bits, ours, theirs);
}

static void narrow(unsigned bits) {
    const float value = apex::float_of(bits);
    const bool nan = value != value;
    const __half half = __float2half_rn(value);
    const __nv_bfloat16 brain = __float2bfloat16_rn(value);
    unsigned short half_bits, brain_bits;
    memcpy(&half_bits, &half, 2);
    memcpy(&brain_bits, &brain, 2);
    compare("f16", bits, apex::As<apex::f16>::from(value).bits, half_bits, nan);
    compare("bf16", bits, apex::As<apex::bf16>::from(value).bits, brain_bits, nan);
    compare("e4m3", bits, apex::As<apex::e4m3>::from(value).bits, __nv_cvt_float_to_fp8(value, __NV_SATFINITE, __NV_E4M3), nan);
}

static void widen(unsigned short bits) {
    __half half;
    memcpy(&half, &bits, 2);
    const float theirs = __half2float(half);
    compare("float", bits, apex::bits_of(apex::to_float(apex::f16{bits})), apex::bits_of(theirs), theirs != theirs);
    const __half_raw eight = __nv_cvt_fp8_to_halfraw(bits & 0xff, __NV_E4M3);
    const float back = __half2float(__half(eight));
    const apex::e4m3 ours{(unsigned char)(bits & 0xff)};
    compare("float8", bits & 0xff, apex::bits_of(apex::to_float(ours)), apex::bits_of(back), back != back);
}

int main() {
    unsigned state = 1;
    for (int i = 0; i < 4000000; ++i) narrow(state = state * 1664525u + 1013904223u);
    for (unsigned upper = 0; upper < 0x10000u; ++upper) {
        const unsigned lower[] = {0u, 1u, 0xfffu, 0x1000u, 0x1001u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu};
        for (unsigned low : lower) narrow(upper << 16 | low);
        widen((unsigned short)upper);
    }
    return wrong != 0;
}
