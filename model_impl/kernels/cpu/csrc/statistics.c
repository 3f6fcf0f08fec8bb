// Entropy, variance and margin of next-token distributions on CPU, in three readings of the logits.
//
// The formulas are those of model_impl/kernels/statistics.py, which is the PyTorch form and calls this one.

#include "common.h"

enum { LANES = 16 };
enum { ENTROPY, VARIANCE, MARGIN, STATISTICS };

typedef struct {
    float logprob;
    int64_t rank;  // how many are at least as likely
} token;

// The two largest of a row; NaN if one of its elements is no number. Nothing is summed up over the lanes until the end.
INLINE void largest(const char *logits, int64_t width, float *top, float *second, int bfloat16) {
    float tops[LANES], seconds[LANES], unusables[LANES] = {0}, unusable = 0;
    for (int lane = 0; lane < LANES; lane++) tops[lane] = seconds[lane] = -INFINITY;
    int64_t whole = width - width % LANES;
    for (int64_t start = 0; start < whole; start += LANES) {
#pragma omp simd
        for (int lane = 0; lane < LANES; lane++) {
            float value = load(logits, start + lane, bfloat16);
            float lower = value < tops[lane] ? value : tops[lane];
            tops[lane] = value > tops[lane] ? value : tops[lane];
            seconds[lane] = lower > seconds[lane] ? lower : seconds[lane];
            unusables[lane] += value != value ? 1.0f : 0.0f;
        }
    }
    for (int lane = 0; lane < LANES; lane++) unusable += unusables[lane];
    *top = *second = -INFINITY;
    for (int64_t i = 0; i < 2 * LANES + width - whole; i++) {
        float value = i < LANES       ? tops[i]
                      : i < 2 * LANES ? seconds[i - LANES]
                                      : load(logits, whole + i - 2 * LANES, bfloat16);
        unusable += value != value ? 1.0f : 0.0f;
        float lower = value < *top ? value : *top;
        *top = value > *top ? value : *top;
        *second = lower > *second ? lower : *second;
    }
    if (unusable > 0) *top = NAN;
}

// The distance of a logit below the largest, 88 at most: e^-88 is 0 here, and -inf times 0 would be NaN.
INLINE float below(float logit, float top) { return at_most(top - logit, 88.0f); }

// A block's logits in float32, converted into `room` if need be: converting in the loops below takes a third longer.
INLINE const float *block_of(const char *logits, int64_t start, int64_t stop, float *room, int bfloat16) {
    if (!bfloat16) return (const float *)logits + start;
    for (int64_t i = start; i < stop; i++) room[i - start] = load(logits, i, bfloat16);
    return room;
}

INLINE token one_row(const char *logits, float *statistics, int64_t width, float chosen, int bfloat16) {
    float top, second;
    largest(logits, width, &top, &second, bfloat16);
    double mass = 0, first = 0, square = 0;
    int64_t rank = 0;
    float room[BLOCK];
    for (int64_t start = 0; start < width; start += BLOCK) {
        int64_t stop = start + BLOCK < width ? start + BLOCK : width;
        const float *own = block_of(logits, start, stop, room, bfloat16);
        float masses = 0, firsts = 0;
        int32_t likely = 0;
#pragma omp simd reduction(+ : masses, firsts, likely)
        for (int64_t i = 0; i < stop - start; i++) {
            likely += own[i] >= chosen;
            float distance = below(own[i], top), e = exp_of_negative(-distance);
            masses += e;
            firsts += e * distance;
        }
        mass += masses;
        first += firsts;
        rank += likely;
    }
    double mean = first / mass;  // of -ln p + ln p(the most likely)
    float centre = mean;
    for (int64_t start = 0; start < width; start += BLOCK) {
        int64_t stop = start + BLOCK < width ? start + BLOCK : width;
        const float *own = block_of(logits, start, stop, room, bfloat16);
        float squares = 0;
#pragma omp simd reduction(+ : squares)
        for (int64_t i = 0; i < stop - start; i++) {
            float distance = below(own[i], top), away = distance - centre;
            squares += exp_of_negative(-distance) * away * away;
        }
        square += squares;
    }
    double entropy = log(mass) + mean;
    if (!(fabsf(top) < INFINITY)) entropy = square = mass = NAN;  // no distribution
    statistics[ENTROPY] = entropy < 0 ? 0 : entropy;
    statistics[VARIANCE] = square / mass;
    statistics[MARGIN] = (1 - exp((double)second - top)) / mass;
    return (token){(double)chosen - top - log(mass), rank};
}

static token row_float32(const char *logits, float *statistics, int64_t width, float chosen) {
    return one_row(logits, statistics, width, chosen, 0);
}

static token row_bfloat16(const char *logits, float *statistics, int64_t width, float chosen) {
    return one_row(logits, statistics, width, chosen, 1);
}

// logits [rows, width], `stride` elements from row to row -> float32 [rows, STATISTICS], `apart` from row to row. With
// the ids of `chosen` tokens [rows]: also their logprobs, in the column before, and their ranks [rows].
void token_statistics(const char *logits, float *statistics, int64_t rows, int64_t width, int64_t stride,
                      int64_t bfloat16, int64_t apart, const int64_t *chosen, int64_t *ranks) {
#pragma omp parallel for if (rows > 1 && rows * width > SERIAL)
    for (int64_t row = 0; row < rows; row++) {
        const char *own = logits + row * stride * (bfloat16 ? 2 : 4);
        float *found = statistics + row * apart, logit = chosen ? load(own, chosen[row], bfloat16) : INFINITY;
        token told = (bfloat16 ? row_bfloat16 : row_float32)(own, found, width, logit);
        if (!chosen) continue;
        found[-1] = told.logprob;
        ranks[row] = told.rank;
    }
}
