// The row operation of a Pattention on CPU: what happens between its two GEMMs, in one pass and without temporaries.
//
// The formulas are those of model_impl/row_operation.py, where the PyTorch form stands; model_impl/row_kernel.py calls
// this one. Row statistics and activations are float32, whatever the scores are.

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __x86_64__
// The library may be built on another machine than it runs on: the loader takes the version for its processor.
#define FOR_EVERY_CPU __attribute__((noinline, target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EVERY_CPU __attribute__((noinline))
#endif
#define INLINE static inline __attribute__((always_inline))

enum { BLOCK = 256 };     // float32 sums are cut after so many terms and go on in float64
enum { ROW_SUMS = 7 };    // model_impl/internals.py
enum { SERIAL = 1 << 14 };  // below so many elements, waking a second thread costs more than it saves

enum report { NOTHING, CONTRIBUTION, INTERNALS };

// The tokens of one projection and growth stage (or delta): columns of a matrix of scores, and of one of weights.
typedef struct {
    const char *scores;
    char *weights;
    const float *value_squares;  // ||v||^2 of each token
    int64_t width, scores_stride, weights_stride;  // elements
} segment;

typedef struct {
    int64_t rows, projections, segments;  // segments of each projection
    const segment *table;  // [projections, segments]
    const float *tau, *coupling;  // [rows, projections, segments], [rows, segments, segments]
    int64_t tau_stride, coupling_stride;  // elements from row to row; 0 where one row serves all
    int64_t bfloat16, gelu_first, report;
    double *sums;  // [rows, segments], to which all projections add; or [rows, projections, segments, ROW_SUMS]
    int64_t sums_stride;  // elements from row to row
} operation;

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

// e^y for -87 < y <= 0: 2^n times a polynomial (Cephes expf), which a compiler can vectorise.
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

// At most 9.25, beyond which erfc is below what float32 can hold. As an integer: a float's minimum becomes a branch, and
// the loop around it would not be vectorised. What is no number is larger than every number, but x itself remains.
INLINE float capped(float z) {
    int32_t bits;
    memcpy(&bits, &z, 4);
    bits = bits < 0x41140000 ? bits : 0x41140000;
    memcpy(&z, &bits, 4);
    return z;
}

// x Phi(x) by the erfc of Abramowitz and Stegun 7.1.26, 1.5e-7 off at most, as PyTorch's own vectorised erf.
INLINE float gelu(float x) {
    float z = capped(fabsf(x) * 0.70710678f);
    float t = 1.0f / (1.0f + 0.3275911f * z);
    float p = 1.061405429f;
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    // Phi(x) = 1 - erfc(z) / 2 on the right and erfc(z) / 2 on the left.
    return (x > 0 ? x : 0) - 0.5f * fabsf(x) * p * t * exp_of_negative(-z * z);
}

INLINE double sum_of_squares(const char *scores, int64_t width, int bfloat16, int gelu_first) {
    double total = 0;
    for (int64_t start = 0; start < width; start += BLOCK) {
        int64_t stop = start + BLOCK < width ? start + BLOCK : width;
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = start; i < stop; i++) {
            float s = load(scores, i, bfloat16);
            s = gelu_first ? gelu(s) : s;
            sum += s * s;
        }
        total += sum;
    }
    return total;
}

INLINE void activate(const char *scores, char *weights, int64_t width, float scale, int bfloat16, int gelu_first) {
    if (scale == 0) {  // the row does not use these tokens
        memset(weights, 0, width * (bfloat16 ? 2 : 4));
        return;
    }
#pragma omp simd
    for (int64_t i = 0; i < width; i++) {
        float s = load(scores, i, bfloat16);
        store(weights, i, gelu_first ? gelu(s) * scale : gelu(s * scale), bfloat16);
    }
}

INLINE double contribution(const char *weights, const float *value_squares, int64_t width, int bfloat16) {
    double total = 0;
    for (int64_t start = 0; start < width; start += BLOCK) {
        int64_t stop = start + BLOCK < width ? start + BLOCK : width;
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = start; i < stop; i++) {
            float w = load(weights, i, bfloat16);
            sum += w * w * value_squares[i];
        }
        total += sum;
    }
    return total;
}

// What model_impl/internals.py `row_sums` has between s^2 and w^2 ||v||^2: the powers of w, and how many are above 0.
INLINE void powers(const char *weights, int64_t width, double *sums, int bfloat16) {
    for (int64_t start = 0; start < width; start += BLOCK) {
        int64_t stop = start + BLOCK < width ? start + BLOCK : width;
        float first = 0, second = 0, third = 0, fourth = 0, positive = 0;
#pragma omp simd reduction(+ : first, second, third, fourth, positive)
        for (int64_t i = start; i < stop; i++) {
            float w = load(weights, i, bfloat16), square = w * w;
            first += w;
            second += square;
            third += square * w;
            fourth += square * square;
            positive += w > 0 ? 1.0f : 0.0f;
        }
        sums[0] += first;
        sums[1] += second;
        sums[2] += third;
        sums[3] += fourth;
        sums[4] += positive;
    }
}

INLINE void one_row(const operation *op, int64_t row, int bfloat16, int gelu_first) {
    int64_t bytes = bfloat16 ? 2 : 4, count = op->segments;
    const float *tau = op->tau + row * op->tau_stride, *coupling = op->coupling + row * op->coupling_stride;
    double squares[count];
    for (int64_t p = 0; p < op->projections; p++) {
        const segment *own = op->table + p * count;
        for (int64_t s = 0; s < count; s++) {
            const char *scores = own[s].scores + row * own[s].scores_stride * bytes;
            squares[s] = sum_of_squares(scores, own[s].width, bfloat16, gelu_first);
        }
        for (int64_t s = 0; s < count; s++) {
            double group = 0;
            for (int64_t other = 0; other < count; other++) group += coupling[s * count + other] * squares[other];
            // Written so that NaN stays NaN: scores that are no numbers must not look like good ones.
            float scale = tau[p * count + s] / sqrt(group < FLT_MIN ? FLT_MIN : group);
            const char *scores = own[s].scores + row * own[s].scores_stride * bytes;
            char *weights = own[s].weights + row * own[s].weights_stride * bytes;
            activate(scores, weights, own[s].width, scale, bfloat16, gelu_first);
            if (op->report == NOTHING) continue;
            double found = contribution(weights, own[s].value_squares, own[s].width, bfloat16);
            double *sums = op->sums + row * op->sums_stride;
            if (op->report == CONTRIBUTION) {
                sums[s] += found;
                continue;
            }
            sums += (p * count + s) * ROW_SUMS;
            memset(sums, 0, sizeof(double) * ROW_SUMS);
            sums[0] = gelu_first ? sum_of_squares(scores, own[s].width, bfloat16, 0) : squares[s];
            powers(weights, own[s].width, sums + 1, bfloat16);
            sums[ROW_SUMS - 1] = found;
        }
    }
}

FOR_EVERY_CPU void row_float32(const operation *op, int64_t row) {
    op->gelu_first ? one_row(op, row, 0, 1) : one_row(op, row, 0, 0);
}

FOR_EVERY_CPU void row_bfloat16(const operation *op, int64_t row) {
    op->gelu_first ? one_row(op, row, 1, 1) : one_row(op, row, 1, 0);
}

void row_operation(const operation *op) {
    int64_t elements = 0;
    for (int64_t i = 0; i < op->projections * op->segments; i++) elements += op->table[i].width;
#pragma omp parallel for if (op->rows > 1 && op->rows * elements > SERIAL)
    for (int64_t row = 0; row < op->rows; row++) op->bfloat16 ? row_bfloat16(op, row) : row_float32(op, row);
}
