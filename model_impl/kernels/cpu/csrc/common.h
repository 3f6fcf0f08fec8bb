// Shared by the kernels for CPUs: numbers in 16 and 32 bits, and functions of them that a compiler can vectorise.

#ifndef CPU_KERNELS_H
#define CPU_KERNELS_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

enum { CACHE_LINE = 64 };   // bytes
enum { BLOCK = 256 };       // float32 sums are cut after so many terms and go on in float64
enum { SERIAL = 1 << 14 };  // below so many elements, waking a second thread costs more than it saves

INLINE float load(const char *row, int64_t i, int bfloat16) {
    if (!bfloat16) return ((const float *)row)[i];
    uint32_t bits = (uint32_t)((const uint16_t *)row)[i] << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

INLINE float store(char *row, int64_t i, float value, int bfloat16) {
    if (!bfloat16) return ((float *)row)[i] = value;
    uint32_t bits;
    memcpy(&bits, &value, 4);
    bits += 0x7fff + (bits >> 16 & 1);  // to the nearest, to even between two; no NaN that arises here can overflow
    ((uint16_t *)row)[i] = bits >> 16;
    bits &= 0xffff0000;
    memcpy(&value, &bits, 4);
    return value;
}

// e^y for -88 <= y <= 0, with 0 at -88: 2^n times a polynomial (Cephes expf), which a compiler can vectorise.
INLINE float exp_of_negative(float y) {
    int32_t n = (int32_t)(y * 1.44269504f - 0.5f);
    float r = y - (float)n * 0.693359375f - (float)n * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t power = (n + 127) << 23;
    float scale;
    memcpy(&scale, &power, 4);
    return p * scale;
}

// The smaller of two numbers that are not negative; `limit` for NaN. They are compared as integers: a float's minimum
// becomes a branch, and the loop around it would not be vectorised.
INLINE float at_most(float z, float limit) {
    int32_t bits, most;
    memcpy(&bits, &z, 4);
    memcpy(&most, &limit, 4);
    bits = bits < most ? bits : most;
    memcpy(&z, &bits, 4);
    return z;
}

// x Phi(x) by the erfc of Abramowitz and Stegun 7.1.26, as PyTorch's vectorised erf; the error is at most 1.5e-7.
INLINE float gelu(float x) {
    float z = at_most(fabsf(x) * 0.70710678f, 9.25f);  // beyond, erfc is below what float32 can hold
    float t = 1.0f / (1.0f + 0.3275911f * z);
    float p = 1.061405429f;
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    // Phi(x) = 1 - erfc(z) / 2 on the right and erfc(z) / 2 on the left.
    return (x > 0 ? x : 0) - 0.5f * fabsf(x) * p * t * exp_of_negative(-z * z);
}

INLINE double sum_of_squares(const char *row, int64_t width, int bfloat16, int gelu_first) {
    double total = 0;
    for (int64_t start = 0; start < width; start += BLOCK) {
        int64_t stop = start + BLOCK < width ? start + BLOCK : width;
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = start; i < stop; i++) {
            float value = load(row, i, bfloat16);
            value = gelu_first ? gelu(value) : value;
            sum += value * value;
        }
        total += sum;
    }
    return total;
}

#endif
