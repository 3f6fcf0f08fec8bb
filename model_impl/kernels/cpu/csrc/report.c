// What is reported of sampled rows: the likeliest words, epistemic uncertainty and growth.
//
// The formulas are those of model_impl/reference/closed_form.py and attribution.py. The PyTorch form stands in
// model_impl/model/report.py.

#include "report.h"

#include <omp.h>
#include <stdlib.h>

enum { MAX_WORDS = 16 };  // model_impl/reference/closed_form.py
// The sums of so many parameter tokens fit into the registers.
#if defined(__AVX512F__)
enum { TOGETHER = 8 };
#elif defined(__AVX2__)
enum { TOGETHER = 4 };
#else
enum { TOGETHER = 2 };
#endif

typedef float by_word __attribute__((vector_size(4 * MAX_WORDS)));
typedef uint32_t __attribute__((may_alias)) float_bits;
enum { GLANCE = 32 };   // numbers that are compared at once with the limit of the largest
enum { SAMPLES = 64 };  // samples of a row: the largest of its numbers i, i + 64, i + 128, ...

// Floats as integers in the same order.
INLINE uint32_t ordered(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
}

INLINE float unordered(uint32_t bits) {
    float value;
    bits ^= bits >> 31 ? 0x80000000u : 0xffffffffu;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

// A number that `count` of the `width` numbers reach, and, but for equal ones, no more of them. It is found bit by bit,
// as branches on the numbers themselves are mispredicted.
INLINE uint32_t threshold(const float_bits *numbers, int64_t width, int64_t count) {
    uint32_t least = 0;
    int32_t above = width;
    for (uint32_t bit = 1u << 31; bit && above != count; bit >>= 1) {
        int32_t found = 0;
#pragma omp simd reduction(+ : found)
        for (int64_t i = 0; i < width; i++) found += numbers[i] >= (least | bit);
        if (found >= count) least |= bit, above = found;
    }
    return least;
}

// The `count` largest of a row, largest first; `count` is less than SAMPLES. All of them reach the limit that the
// samples give, and, of a long row, few others do. What reaches it finds its place one by one.
INLINE void largest(const char *row, int64_t width, int64_t count, float *values, int64_t *ids, int bfloat16) {
    float tops[SAMPLES], limit;
    float_bits samples[SAMPLES];
    for (int64_t i = 0; i < SAMPLES; i++) tops[i] = -INFINITY;
    for (int64_t start = 0; start + SAMPLES <= width; start += SAMPLES) {
#pragma omp simd
        for (int64_t i = 0; i < SAMPLES; i++) {
            float value = load(row, start + i, bfloat16);
            tops[i] = value > tops[i] ? value : tops[i];
        }
    }
    for (int64_t i = 0; i < SAMPLES; i++) samples[i] = ordered(tops[i]);
    limit = unordered(threshold(samples, SAMPLES, count));
    for (int64_t i = 0; i < count; i++) values[i] = -INFINITY, ids[i] = 0;
    for (int64_t start = 0; start < width; start += GLANCE) {
        int64_t stop = start + GLANCE < width ? start + GLANCE : width;
        int32_t above = 0;
#pragma omp simd reduction(+ : above)
        for (int64_t i = start; i < stop; i++) above += load(row, i, bfloat16) >= limit;
        for (int64_t i = start; above && i < stop; i++) {
            float value = load(row, i, bfloat16);
            if (!(value >= limit && value > values[count - 1])) continue;
            int64_t place = count - 1;
            for (; place > 0 && values[place - 1] < value; place--) {
                values[place] = values[place - 1];
                ids[place] = ids[place - 1];
            }
            values[place] = value;
            ids[place] = i;
        }
    }
}

// The `count` numbers of a row whose size is largest, and their places, in the order of these; both with room for one
// more, `bits` [width].
INLINE void strongest(const char *row, int64_t width, int64_t count, float_bits *bits, float *sizes, int64_t *ids,
                      int bfloat16) {
    for (int64_t i = 0; i < width; i++) {
        float size = fabsf(load(row, i, bfloat16));
        memcpy(bits + i, &size, sizeof(size));  // in the order of the sizes, as none is negative
    }
    uint32_t least = threshold(bits, width, count);
    int32_t above = 0;
#pragma omp simd reduction(+ : above)
    for (int64_t i = 0; i < width; i++) above += bits[i] > least;
    int64_t equal = count - above, place = 0;
    for (int64_t i = 0; i < width; i++) {
        int taken = bits[i] > least || (bits[i] == least && equal > 0);
        memcpy(sizes + place, bits + i, sizeof(float));
        ids[place] = i;
        place += taken;
        equal -= bits[i] == least;
    }
}

// logits [rows, width], `stride` elements from row to row -> the `count` largest of each row and their places.
void likeliest_words(const char *logits, int64_t rows, int64_t width, int64_t stride, int64_t bfloat16, int64_t count,
                     float *values, int64_t *ids) {
#pragma omp parallel for if (rows > 1 && rows * width > SERIAL)
    for (int64_t row = 0; row < rows; row++) {
        const char *own = logits + row * stride * (bfloat16 ? 2 : 4);
        if (bfloat16)
            largest(own, width, count, values + row * count, ids + row * count, 1);
        else
            largest(own, width, count, values + row * count, ids + row * count, 0);
    }
}

// Adds what the parts of several products give: out float32 [rows, width], `stride` numbers from row to row.
void add_parts(const part *parts, int64_t count, int64_t rows, float *out, int64_t stride) {
    const packed *any = parts->values;
#pragma omp parallel for schedule(static)
    for (int64_t number = 0; number < (any->outputs + PANEL - 1) / PANEL; number++) {
        float sums[MAX_SMALL_BATCH * PANEL];
        int64_t left = any->outputs - number * PANEL, columns = left < PANEL ? left : PANEL;
        memset(sums, 0, rows * PANEL * sizeof(float));
        for (int64_t i = 0; i < count; i++)
            sum_panel(parts[i].values, parts[i].weights, number, parts[i].first, parts[i].stop, sums, rows);
        for (int64_t row = 0; row < rows; row++)
            for (int64_t i = 0; i < columns; i++) out[row * stride + number * PANEL + i] += sums[row * PANEL + i];
    }
}

INLINE float sum(const float *x, int64_t width) {
    float total = 0;
#pragma omp simd reduction(+ : total)
    for (int64_t i = 0; i < width; i++) total += x[i];
    return total;
}

INLINE float dot(const float *x, const float *y, int64_t width) {
    float total = 0;
#pragma omp simd reduction(+ : total)
    for (int64_t i = 0; i < width; i++) total += x[i] * y[i];
    return total;
}

INLINE void read_row(const char *matrix, int64_t number, int64_t width, float *out, int bfloat16) {
    const char *row = matrix + number * width * (bfloat16 ? 2 : 4);
    for (int64_t i = 0; i < width; i++) out[i] = load(row, i, bfloat16);
}

// Rows and tokens lie anywhere in memory: all of them are fetched at once, ahead of the work on the first.
INLINE void fetch(const char *start, int64_t bytes) {
    for (int64_t byte = 0; byte < bytes; byte += CACHE_LINE) __builtin_prefetch(start + byte, 0, 2);
}

INLINE void fetch_token(const packed *values, int64_t token, int bfloat16) {
    for (int64_t panel = 0; panel * PANEL < values->outputs; panel++)
        fetch(values->weights + panel * values->panel_bytes + (bfloat16 ? token / 2 : token) * LINE, LINE);
}

// One value token [width] out of the panels.
INLINE void read_token(const packed *values, int64_t token, float *out, int bfloat16) {
    for (int64_t first = 0; first < values->outputs; first += PANEL) {
        int64_t left = values->outputs - first, columns = left < PANEL ? left : PANEL;
        const char *panel = values->weights + first / PANEL * values->panel_bytes;
        const char *line = panel + (bfloat16 ? token / 2 : token) * LINE;
        if (!bfloat16) {
            memcpy(out + first, line, columns * sizeof(float));
            continue;
        }
        // Two tokens lie side by side; the bits of a bfloat16 are the upper ones of a float32.
        uint32_t bits[PANEL];
        memcpy(bits, line, columns * sizeof(float));
        for (int64_t i = 0; i < columns; i++) bits[i] = token % 2 ? bits[i] & 0xffff0000u : bits[i] << 16;
        memcpy(out + first, bits, columns * sizeof(float));
    }
}

// How the logit of each likely word, above the mean of all, answers to the residual stream: [width, MAX_WORDS], filled up
// with zeros. `rows` is room for [words, width].
INLINE void gradients(const reporter *own, const float *x, float inverse, const float *norm, const float *probabilities,
                      const int64_t *ids, float *mean, float *rows, float *out, int bfloat16) {
    int64_t width = own->width;
    memset(out, 0, width * MAX_WORDS * sizeof(float));
    memset(mean, 0, width * sizeof(float));
    for (int64_t word = 0; word < own->words; word++) {
        float *g = rows + word * width;
        read_row(own->head, ids[word], width, g, bfloat16);
#pragma omp simd
        for (int64_t i = 0; i < width; i++) mean[i] += probabilities[word] * (g[i] *= norm[i]);
    }
    for (int64_t word = 0; word < own->words; word++) {
        float *g = rows + word * width;
#pragma omp simd
        for (int64_t i = 0; i < width; i++) g[i] -= mean[i];
        float level = sum(g, width) / width, along = dot(g, x, width) / width;
        for (int64_t i = 0; i < width; i++) out[i * MAX_WORDS + word] = (g[i] - level - x[i] * along) * inverse;
    }
}

// The sum over `count` of the strongest tokens of w^2 Var_p(v . g).
INLINE double spread(const reporter *own, const int64_t *tokens, const float *sizes, int64_t count,
                     const float *probabilities, const float *g, float *room, int bfloat16) {
    int64_t width = own->width;
    double total = 0;
    for (int64_t first = 0; first < count; first += TOGETHER) {
        for (int64_t i = 0; i < TOGETHER; i++) {
            if (first + i < count)
                read_token(own->values, tokens[first + i], room + i * width, bfloat16);
            else
                memset(room + i * width, 0, width * sizeof(float));
        }
        by_word moves[TOGETHER];
        memset(moves, 0, sizeof(moves));
        for (int64_t i = 0; i < width; i++) {
            by_word gradient;
            memcpy(&gradient, g + i * MAX_WORDS, sizeof(gradient));
#pragma GCC unroll 8
            for (int t = 0; t < TOGETHER; t++) moves[t] += gradient * room[t * width + i];
        }
        for (int64_t t = 0; t < TOGETHER && first + t < count; t++) {
            double variance = 0;
            for (int64_t word = 0; word < own->words; word++)
                variance += (double)probabilities[word] * moves[t][word] * moves[t][word];
            total += (double)sizes[first + t] * sizes[first + t] * variance;
        }
    }
    return total;
}

// What a part of the residual stream adds to the logit whose direction, times the norm's weight, is given.
INLINE float logit_part(const float *added, const float *direction, float level, int64_t width) {
    return dot(added, direction, width) - sum(added, width) / width * level;
}

INLINE void growth(const reporter *own, const reported *step, int64_t row, int64_t number, const float *residual,
                   float inverse, const float *norm, float *direction, float *room, float *out, int bfloat16) {
    int64_t width = own->width, rivals = 0, chosen = step->chosen[row];
    const int64_t *ids = step->ids + row * own->words;
    memset(direction, 0, width * sizeof(float));
    for (int64_t word = 0; word < own->words && rivals < own->rivals; word++) {
        if (ids[word] == chosen) continue;
        rivals++;
        read_row(own->head, ids[word], width, room, bfloat16);
        for (int64_t i = 0; i < width; i++) direction[i] -= room[i];
    }
    read_row(own->head, chosen, width, room, bfloat16);
    for (int64_t i = 0; i < width; i++) direction[i] = (room[i] + direction[i] / (rivals ? rivals : 1)) * norm[i];
    float level = sum(direction, width), rest = logit_part(residual, direction, level, width);
    read_row(step->embedded, number, width, room, bfloat16);
    rest -= logit_part(room, direction, level, width);
    for (int64_t s = 1; s < step->segments; s++) {
        const float *added = step->added + (number * (step->segments - 1) + s - 1) * width;
        out[s] = logit_part(added, direction, level, width);
        rest -= out[s];
        out[s] *= inverse;
    }
    out[0] = rest * inverse;
}

// The numbers that `report_row` writes down: of `rows`, which are last, the parameter tokens' sizes come first.
INLINE int64_t room_of(const reporter *own) {
    int64_t rows = MAX_WORDS * own->width, depth = own->values->depth;
    return (4 + MAX_WORDS + TOGETHER) * own->width + (rows > depth ? rows : depth);
}

// The columns of a row, and, of the closed form, what one of several parts of its tokens adds.
INLINE double report_row(const reporter *own, const reported *step, int64_t row, int64_t part, int64_t parts,
                         float *room, int bfloat16) {
    int64_t width = own->width, number = step->numbers ? step->numbers[row] : row, words = own->words;
    float *residual = room, *x = residual + width, *norm = x + width, *mean = norm + width, *g = mean + width;
    float *tokens = g + MAX_WORDS * width, *rows = tokens + TOGETHER * width, probabilities[MAX_WORDS], mass = 0;
    const float *logits = step->logits + row * words;
    const int64_t *ids = step->ids + row * words;
    int64_t bytes = bfloat16 ? 2 : 4;
    for (int64_t word = 0; word < words; word++) fetch(own->head + ids[word] * width * bytes, width * bytes);
    int64_t depth = own->values->depth, places[own->strongest + 1];
    float sizes[own->strongest + 1];
    const char *weights = step->weights + number * depth * bytes;
    strongest(weights, depth, own->strongest, (float_bits *)rows, sizes, places, bfloat16);
    int64_t first = own->strongest * part / parts, stop = own->strongest * (part + 1) / parts;
    for (int64_t i = first; i < stop; i++) fetch_token(own->values, places[i], bfloat16);
    read_row(own->norm, 0, width, norm, bfloat16);
    read_row(step->residual, number, width, residual, bfloat16);
    float level = sum(residual, width) / width;
    for (int64_t i = 0; i < width; i++) x[i] = residual[i] - level;
    float inverse = 1 / sqrt(dot(x, x, width) / width + own->eps);
    for (int64_t i = 0; i < width; i++) x[i] *= inverse;
    for (int64_t word = 0; word < words; word++) mass += probabilities[word] = expf(logits[word] - logits[0]);
    for (int64_t word = 0; word < words; word++) probabilities[word] /= mass;
    gradients(own, x, inverse, norm, probabilities, ids, mean, rows, g, bfloat16);
    if (part == 0 && step->segments > 1) {
        float *out = step->out + row * step->columns + 1;
        growth(own, step, row, number, residual, inverse, norm, mean, tokens, out, bfloat16);
    }
    return own->scale * spread(own, places + first, sizes + first, stop - first, probabilities, g, tokens, bfloat16);
}

// Where there are fewer rows than threads, these share a row's tokens.
void report_rows(const reporter *own, const reported *step) {
    int64_t threads = omp_get_max_threads(), parts = step->rows && step->rows < threads ? threads / step->rows : 1;
    double sums[step->rows * parts + 1];
#pragma omp parallel
    {
        float *room = malloc(room_of(own) * sizeof(float));
#pragma omp for schedule(static)
        for (int64_t i = 0; i < step->rows * parts; i++)
            sums[i] = own->bfloat16 ? report_row(own, step, i / parts, i % parts, parts, room, 1)
                                    : report_row(own, step, i / parts, i % parts, parts, room, 0);
        free(room);
    }
    for (int64_t row = 0; row < step->rows; row++) {
        double total = 0;
        for (int64_t part = 0; part < parts; part++) total += sums[row * parts + part];
        step->out[row * step->columns] = total;
    }
}
