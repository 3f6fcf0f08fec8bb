// Products of a few rows with packed weights, and a whole Pattention of such rows in one go.
//
// Reading the weights takes all of the time of a step of few rows. Weights [N, K] lie as oneDNN packs them
// (model_impl/kernels/cpu/weights.py). A panel holds 64 outputs. A line of 256 bytes in it holds all outputs of one k,
// or of two in bfloat16. The last panel and the last line are filled up with zeros.

#include "packed.h"

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

enum { GROUP = 6 };             // rows whose sums fit into the registers beside the weights
enum { AHEAD = 6144, SMALL = 1 << 20 };  // bytes

// The number of registers decides how many vectors of a line a pass takes (VECTORS): room for the weights and for at
// least eight sums that need not wait for each other. (With AVX2, four rows store some sums in each line: that takes
// less time than narrow passes, see docs/decisions/0004.) Where a pass is narrower than a line, a panel is read in
// pieces of CHUNK lines, which stay in the caches from the first pass to the last.
#if defined(__AVX512F__)
enum { LANES = 16, CHUNK = 1 << 30 };  // 32 registers
#define VECTORS(rows) 4
#else
#if defined(__AVX2__)
enum { LANES = 8, CHUNK = 128 };  // 16 registers
#else
enum { LANES = 4, CHUNK = 128 };
#endif
#define VECTORS(rows) ((rows) <= 2 ? 8 : (rows) <= 4 ? 4 : 2)
#endif
enum { MAX_VECTORS = 8 };

typedef float floats __attribute__((vector_size(4 * LANES)));
typedef uint32_t words __attribute__((vector_size(4 * LANES)));

INLINE float as_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

// Two neighbours of a row in bfloat16.
INLINE uint32_t pair(const uint16_t *row, int64_t number) {
    uint32_t bits;
    memcpy(&bits, row + 2 * number, 4);
    return bits;
}

// Prefetch what the passes over a line need later. Narrow passes fetch the next piece, as the processor's own
// prefetching does not follow their strides. A lone row's weights bypass the caches, so that vLLM's code stays there
// until the next step. Small weights may stay there themselves. With more rows the bypass costs more than it saves.
INLINE void announce(const packed *weight, const char *vectors, int rows, int count) {
    const int64_t bytes = count * sizeof(floats);
    if (bytes < LINE) {
#pragma GCC unroll 8
        for (int64_t byte = 0; byte < bytes; byte += CACHE_LINE)
            __builtin_prefetch(vectors + byte + (int64_t)CHUNK * LINE, 0, 2);
    } else if (rows == 1 && weight->panel_bytes * weight->outputs >= (int64_t)PANEL * SMALL) {
#pragma GCC unroll 8
        for (int64_t byte = 0; byte < bytes; byte += CACHE_LINE) __builtin_prefetch(vectors + byte + AHEAD, 0, 0);
    }
}

// Adds x [rows, K] times `count` vectors of each of `lines` lines to sums [rows, count]. `rows` and `count` are
// constants to the compiler: it has to unroll all loops over them, and arrays need constant sizes, or the sums leave
// the registers.

INLINE void sum_float32(const packed *weight, const char *x, const char *panel, int64_t lines, floats *sums, int rows,
                        int count) {
    const float *of_row[GROUP];
#pragma GCC unroll 8
    for (int row = 0; row < rows; row++) of_row[row] = (const float *)x + row * weight->depth;
    for (int64_t line = 0; line < lines; line++) {
        const char *vectors = panel + line * LINE;
        announce(weight, vectors, rows, count);
        floats own[MAX_VECTORS];
#pragma GCC unroll 8
        for (int c = 0; c < count; c++) memcpy(&own[c], vectors + c * sizeof(floats), sizeof(floats));
#pragma GCC unroll 8
        for (int row = 0; row < rows; row++) {
            float value = of_row[row][line];
#pragma GCC unroll 8
            for (int c = 0; c < count; c++) sums[row * count + c] += own[c] * value;
        }
    }
}

INLINE void sum_bfloat16(const packed *weight, const char *x, const char *panel, int64_t lines, floats *sums, int rows,
                         int count) {
    const uint16_t *of_row[GROUP];
#pragma GCC unroll 8
    for (int row = 0; row < rows; row++) of_row[row] = (const uint16_t *)x + row * weight->depth;
    for (int64_t line = 0; line < lines; line++) {
        const char *vectors = panel + line * LINE;
        announce(weight, vectors, rows, count);
#ifdef __AVX512BF16__
        __m512bh own[MAX_VECTORS];
#pragma GCC unroll 8
        for (int c = 0; c < count; c++) memcpy(&own[c], vectors + c * sizeof(floats), sizeof(floats));
#pragma GCC unroll 8
        for (int row = 0; row < rows; row++) {
            __m512bh both = (__m512bh)_mm512_set1_epi32(pair(of_row[row], line));
#pragma GCC unroll 8
            for (int c = 0; c < count; c++)
                sums[row * count + c] = (floats)_mm512_dpbf16_ps((__m512)sums[row * count + c], own[c], both);
        }
#else
        floats even[MAX_VECTORS], odd[MAX_VECTORS];
#pragma GCC unroll 8
        for (int c = 0; c < count; c++) {
            words bits;
            memcpy(&bits, vectors + c * sizeof(words), sizeof(words));
            even[c] = (floats)(bits << 16);
            odd[c] = (floats)(bits & 0xffff0000u);
        }
#pragma GCC unroll 8
        for (int row = 0; row < rows; row++) {
            uint32_t bits = pair(of_row[row], line);
#pragma GCC unroll 8
            for (int c = 0; c < count; c++) sums[row * count + c] += even[c] * as_float(bits << 16);
#pragma GCC unroll 8
            for (int c = 0; c < count; c++) sums[row * count + c] += odd[c] * as_float(bits & 0xffff0000u);
        }
#endif
    }
}

// Adds the products of `lines` lines and `rows` rows, GROUP at most, to sums [rows, PANEL], in passes over
// VECTORS(rows) vectors.
#define CASE(rows, sum) \
    case rows: \
        for (int start = 0; start < PANEL; start += VECTORS(rows) * LANES) { \
            floats own[(rows) * VECTORS(rows)]; \
            const size_t width = VECTORS(rows) * sizeof(floats); \
            for (int row = 0; row < rows; row++) memcpy(own + row * VECTORS(rows), sums + row * PANEL + start, width); \
            sum(weight, x, panel + 4 * start, lines, own, rows, VECTORS(rows)); \
            for (int row = 0; row < rows; row++) memcpy(sums + row * PANEL + start, own + row * VECTORS(rows), width); \
        } \
        break;
#define GROUP_FUNCTION(name, sum) \
    static void name(const packed *weight, const char *x, const char *panel, int64_t lines, float *sums, \
                     int64_t rows) { \
        switch (rows) { CASE(1, sum) CASE(2, sum) CASE(3, sum) CASE(4, sum) CASE(5, sum) CASE(6, sum) } \
    }

GROUP_FUNCTION(group_float32, sum_float32)
GROUP_FUNCTION(group_bfloat16, sum_bfloat16)

// Adds the products of x [rows, K], at most MAX_SMALL_BATCH rows, and the lines from `first` to `stop` of one panel to
// sums [rows, PANEL].
void sum_panel(const packed *weight, const char *x, int64_t number, int64_t first, int64_t stop, float *sums,
               int64_t rows) {
    void (*add)(const packed *, const char *, const char *, int64_t, float *, int64_t) =
        weight->bfloat16 ? group_bfloat16 : group_float32;
    int64_t bytes = weight->bfloat16 ? 2 : 4;
    const char *panel = weight->weights + number * weight->panel_bytes;
    for (int64_t line = first; line < stop; line += CHUNK) {
        int64_t piece = stop - line < CHUNK ? stop - line : CHUNK;
        for (int64_t row = 0, size; row < rows; row += size) {
            int64_t left = rows - row, groups = (left + GROUP - 1) / GROUP;
            size = (left + groups - 1) / groups;  // groups of about the same size, as lone rows cost most
            const char *part = x + row * weight->depth * bytes + line * 4;
            add(weight, part, panel + line * LINE, piece, sums + row * PANEL, size);
        }
    }
}

// The number of outputs in a panel.
static int64_t columns_of(const packed *weight, int64_t number) {
    int64_t left = weight->outputs - number * PANEL;
    return left < PANEL ? left : PANEL;
}

// x [rows, K] -> the columns of out [rows, N] that one panel gives; at most MAX_SMALL_BATCH rows.
static void multiply_panel(const packed *weight, const char *x, char *out, int64_t number, int64_t rows) {
    float sums[MAX_SMALL_BATCH * PANEL];
    memset(sums, 0, rows * PANEL * sizeof(float));
    sum_panel(weight, x, number, 0, weight->depth * (weight->bfloat16 ? 2 : 4) / 4, sums, rows);
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < columns_of(weight, number); i++)
            store(out, row * weight->outputs + number * PANEL + i, sums[row * PANEL + i], weight->bfloat16);
}

static int64_t panels(const packed *weight) { return (weight->outputs + PANEL - 1) / PANEL; }

// x [rows, K] -> out [rows, N].
void packed_product(const packed *weight, const char *x, char *out, int64_t rows) {
#pragma omp parallel for schedule(static)
    for (int64_t number = 0; number < panels(weight); number++) multiply_panel(weight, x, out, number, rows);
}

// The product of the lines from `first` to `stop` alone: x [rows, K] -> out float32 [rows, N].
void packed_part(const packed *weight, const char *x, float *out, int64_t rows, int64_t first, int64_t stop) {
#pragma omp parallel for schedule(static)
    for (int64_t number = 0; number < panels(weight); number++) {
        float sums[MAX_SMALL_BATCH * PANEL];
        memset(sums, 0, rows * PANEL * sizeof(float));
        sum_panel(weight, x, number, first, stop, sums, rows);
        for (int64_t row = 0; row < rows; row++)
            memcpy(out + row * weight->outputs + number * PANEL, sums + row * PANEL,
                   columns_of(weight, number) * sizeof(float));
    }
}

#define CLEAR(type) \
    for (int64_t i = 0; i < tokens; i++) ((type *)weights)[i] &= (type)(left_out[i] - 1)

// Sets the weights to zero that the row's ensemble member leaves out.
static void mask_row(const packed_module *own, int64_t row) {
    int64_t member = own->members ? own->members[row] : 0;
    for (int64_t p = 0; member && p < own->module->projections; p++) {
        if (!own->left_out[p]) continue;
        int64_t tokens = own->values[p].depth, bfloat16 = own->values[p].bfloat16;
        const uint8_t *left_out = own->left_out[p] + member * tokens;
        char *weights = own->weights[p] + row * tokens * (bfloat16 ? 2 : 4);
        if (bfloat16)
            CLEAR(uint16_t);
        else
            CLEAR(uint32_t);
    }
}
#undef CLEAR

void pattention_of_rows(const packed_module *own, int64_t rows, const char *x, char *out, step now) {
    const char *scores = own->scores;
    now.scores = &scores;
    now.weights = own->weights;
    int64_t count = panels(own->values), bytes = own->keys->bfloat16 ? 2 : 4;
#pragma omp for schedule(static)
    for (int64_t number = 0; number < panels(own->keys); number++)
        multiply_panel(own->keys, x, own->scores, number, rows);
#pragma omp for schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        operate_on_row(own->module, &now, row);
        mask_row(own, row);
    }
#pragma omp for schedule(static)
    for (int64_t i = 0; i < own->module->projections * count; i++) {
        int64_t p = i / count;
        char *output = out + p * rows * own->values->outputs * bytes;
        multiply_panel(own->values + p, own->weights[p], output, i % count, rows);
    }
}

// x [rows, K] -> out [projections, rows, N]; the rest as for `row_operation`.
void packed_pattention(const packed_module *own, int64_t rows, const char *x, char *out, const float *tau,
                       int64_t tau_stride, const float *coupling, int64_t coupling_stride) {
    step now = {NULL, NULL, tau, coupling, tau_stride, coupling_stride};
#pragma omp parallel
    pattention_of_rows(own, rows, x, out, now);
}
