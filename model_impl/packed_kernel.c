// Products of a few rows with packed weights, and a whole Pattention of such rows in one go.
//
// A step of few rows takes as long as reading the weights does. What is read here are weights [N, K] as oneDNN packs them
// (model_impl/packed_weight.py): panels of 64 outputs, in which all outputs of one k, in bfloat16 of two, lie side by side;
// the last panel and the last k are filled up with zeros.

#include "packed_kernel.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

enum { PANEL = 64, LANES = 16, VECTORS = PANEL / LANES };
enum { GROUP = 6 };  // rows whose sums fit into the registers beside the weights
enum { AHEAD = 6144, SMALL = 1 << 20 };  // bytes

typedef float floats __attribute__((vector_size(4 * LANES)));
typedef uint32_t words __attribute__((vector_size(4 * LANES)));

INLINE float as_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

INLINE uint32_t pair(const packed *weight, const char *x, int row, int64_t number) {
    uint32_t bits;
    memcpy(&bits, x + (row * weight->depth + 2 * number) * 2, 4);
    return bits;
}

// The weights that a lone row needs come past the caches, in which vLLM's own code then stays until the next step. Small
// ones may stay there themselves; and with more rows, whose x wants the first cache as well, it costs more than it saves.
INLINE void announce(const packed *weight, const char *vectors, int rows) {
    if (rows > 1 || weight->panel_bytes * weight->outputs < PANEL * SMALL) return;
    for (int c = 0; c < VECTORS; c++) __builtin_prefetch(vectors + c * sizeof(floats) + AHEAD, 0, 0);
}

// In the following, x [rows, K] times a panel -> sums; `rows` is a constant to the compiler, which has to unroll for the
// sums to stay in registers.

INLINE void sum_float32(const packed *weight, const char *x, const char *panel, floats sums[][VECTORS], int rows) {
    for (int64_t k = 0; k < weight->depth; k++) {
        floats own[VECTORS];
        announce(weight, panel + k * sizeof(own), rows);
        for (int c = 0; c < VECTORS; c++) memcpy(&own[c], panel + (k * VECTORS + c) * sizeof(floats), sizeof(floats));
#pragma GCC unroll 8
        for (int row = 0; row < rows; row++)
            for (int c = 0; c < VECTORS; c++) sums[row][c] += own[c] * ((const float *)x)[row * weight->depth + k];
    }
}

INLINE void sum_bfloat16(const packed *weight, const char *x, const char *panel, floats sums[][VECTORS], int rows) {
    for (int64_t number = 0; number < weight->depth / 2; number++) {
        floats even[VECTORS], odd[VECTORS];
        announce(weight, panel + number * sizeof(even), rows);
        for (int c = 0; c < VECTORS; c++) {
            words bits;
            memcpy(&bits, panel + (number * VECTORS + c) * sizeof(words), sizeof(words));
            even[c] = (floats)(bits << 16);
            odd[c] = (floats)(bits & 0xffff0000u);
        }
#pragma GCC unroll 8
        for (int row = 0; row < rows; row++) {
            uint32_t bits = pair(weight, x, row, number);
            for (int c = 0; c < VECTORS; c++) sums[row][c] += even[c] * as_float(bits << 16);
            for (int c = 0; c < VECTORS; c++) sums[row][c] += odd[c] * as_float(bits & 0xffff0000u);
        }
    }
}

#ifdef __x86_64__
#define WITH_DOT_PRODUCTS __attribute__((target("avx512f,avx512bf16")))

WITH_DOT_PRODUCTS INLINE void sum_dot_products(const packed *weight, const char *x, const char *panel,
                                               floats sums[][VECTORS], int rows) {
    for (int64_t number = 0; number < weight->depth / 2; number++) {
        __m512bh own[VECTORS];
        announce(weight, panel + number * sizeof(own), rows);
        for (int c = 0; c < VECTORS; c++) memcpy(&own[c], panel + (number * VECTORS + c) * sizeof(own[c]), sizeof(own[c]));
#pragma GCC unroll 8
        for (int row = 0; row < rows; row++) {
            __m512bh both = (__m512bh)_mm512_set1_epi32(pair(weight, x, row, number));
            for (int c = 0; c < VECTORS; c++) sums[row][c] = _mm512_dpbf16_ps(sums[row][c], own[c], both);
        }
    }
}
#endif

// The rows' columns of out [rows, N] from panel `number`, by one of the above.
#define OF_ROWS(count, sum, bfloat16) \
    case count: { \
        floats sums[count][VECTORS] = {0}; \
        sum(weight, x, weight->weights + number * weight->panel_bytes, sums, count); \
        for (int row = 0; row < count; row++) { \
            float values[PANEL]; \
            memcpy(values, sums[row], sizeof(values)); \
            for (int64_t i = 0; i < columns; i++) store(out, row * weight->outputs + first + i, values[i], bfloat16); \
        } \
        break; \
    }
#define PANEL_FUNCTION(name, targets, sum, bfloat16) \
    targets static void name(const packed *weight, const char *x, char *out, int64_t number, int64_t rows) { \
        int64_t first = number * PANEL, left = weight->outputs - first, columns = left < PANEL ? left : PANEL; \
        switch (rows) { \
            OF_ROWS(1, sum, bfloat16) OF_ROWS(2, sum, bfloat16) OF_ROWS(3, sum, bfloat16) \
            OF_ROWS(4, sum, bfloat16) OF_ROWS(5, sum, bfloat16) OF_ROWS(6, sum, bfloat16) \
        } \
    }

PANEL_FUNCTION(panel_float32, FOR_EVERY_CPU, sum_float32, 0)
PANEL_FUNCTION(panel_bfloat16, FOR_EVERY_CPU, sum_bfloat16, 1)
#ifdef __x86_64__
PANEL_FUNCTION(panel_dot_products, WITH_DOT_PRODUCTS, sum_dot_products, 1)
#endif

// x [rows, K] -> the columns of out [rows, N] that one panel gives. Between its groups of rows it stays in the cache.
static void multiply_panel(const packed *weight, const char *x, char *out, int64_t number, int64_t rows) {
    int64_t bytes = weight->bfloat16 ? 2 : 4;
    void (*multiply)(const packed *, const char *, char *, int64_t, int64_t) =
        weight->bfloat16 ? panel_bfloat16 : panel_float32;
#ifdef __x86_64__
    if (weight->bfloat16 && weight->dot_products) multiply = panel_dot_products;
#endif
    for (int64_t start = 0; start < rows; start += GROUP) {
        const char *own = x + start * weight->depth * bytes;
        char *found = out + start * weight->outputs * bytes;
        multiply(weight, own, found, number, rows - start < GROUP ? rows - start : GROUP);
    }
}

static int64_t panels(const packed *weight) { return (weight->outputs + PANEL - 1) / PANEL; }

// x [rows, K] -> out [rows, N].
void packed_product(const packed *weight, const char *x, char *out, int64_t rows) {
#pragma omp parallel for schedule(static)
    for (int64_t number = 0; number < panels(weight); number++) multiply_panel(weight, x, out, number, rows);
}

FOR_EVERY_CPU static double square_of_row(const char *x, int64_t width, int64_t bfloat16) {
    return bfloat16 ? sum_of_squares(x, width, 1, 0) : sum_of_squares(x, width, 0, 0);
}

void pattention_of_rows(const packed_module *own, int64_t rows, const char *x, char *out, step now) {
    const char *scores = own->scores;
    now.scores = &scores;
    now.weights = own->weights;
    int64_t count = panels(own->values), bytes = own->keys->bfloat16 ? 2 : 4;
#pragma omp for schedule(static)
    for (int64_t number = 0; number < panels(own->keys); number++) multiply_panel(own->keys, x, own->scores, number, rows);
#pragma omp for schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        operate_on_row(own->module, &now, row);
        int64_t width = own->keys->depth;
        if (now.report == INTERNALS)
            own->x_squares[row] = square_of_row(x + row * width * bytes, width, own->keys->bfloat16);
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
                       int64_t tau_stride, const float *coupling, int64_t coupling_stride, int64_t report, double *sums,
                       int64_t sums_stride) {
    step now = {NULL, NULL, tau, coupling, tau_stride, coupling_stride, report, sums, sums_stride};
#pragma omp parallel
    pattention_of_rows(own, rows, x, out, now);
}
