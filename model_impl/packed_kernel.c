// Products of a few rows with packed weights, and a whole Pattention of such rows in one go.
//
// A step of few rows takes as long as reading the weights does. What is read here are weights [N, K] as oneDNN packs them
// (model_impl/packed_weight.py): panels of 64 outputs, in which all outputs of one k, in bfloat16 of two, lie side by side;
// the last panel and the last k are filled up with zeros.

#include "row_kernel.h"

enum { PANEL = 64, LANES = 16, VECTORS = PANEL / LANES };
enum { MOST_ROWS = 6 };  // whose sums fit into the registers beside the weights; as in packed_weight.py

typedef float floats __attribute__((vector_size(4 * LANES)));
typedef uint32_t words __attribute__((vector_size(4 * LANES)));

typedef struct {
    const char *weights;
    int64_t outputs, depth;  // N and K; in bfloat16 K is even
    int64_t bfloat16, panel_bytes;
} packed;

INLINE floats as_floats(words bits) {
    floats values;
    memcpy(&values, &bits, sizeof(values));
    return values;
}

INLINE float as_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

// The sums of one row go on by one number of x times the weights of all outputs.
INLINE void accumulate(floats sums[][VECTORS], const floats *weights, int row, float x) {
    for (int c = 0; c < VECTORS; c++) sums[row][c] += weights[c] * x;
}

// x [rows, K] times a panel -> its columns of out [rows, N]. `rows` and `bfloat16` are constants to the compiler.
INLINE void multiply(const packed *weight, const char *x, char *out, int64_t number, int rows, int bfloat16) {
    const char *panel = weight->weights + number * weight->panel_bytes;
    floats sums[MOST_ROWS][VECTORS];
    for (int row = 0; row < rows; row++)
        for (int c = 0; c < VECTORS; c++) sums[row][c] = (floats){0};
    if (bfloat16) {
        for (int64_t pair = 0; pair < weight->depth / 2; pair++) {
            floats even[VECTORS], odd[VECTORS];
            for (int c = 0; c < VECTORS; c++) {
                words bits;
                memcpy(&bits, panel + (pair * VECTORS + c) * sizeof(bits), sizeof(bits));
                even[c] = as_floats(bits << 16);
                odd[c] = as_floats(bits & 0xffff0000u);
            }
            for (int row = 0; row < rows; row++) {
                uint32_t bits;
                memcpy(&bits, x + (row * weight->depth + 2 * pair) * 2, 4);
                accumulate(sums, even, row, as_float(bits << 16));
                accumulate(sums, odd, row, as_float(bits & 0xffff0000u));
            }
        }
    } else {
        for (int64_t k = 0; k < weight->depth; k++) {
            floats own[VECTORS];
            memcpy(own, panel + k * sizeof(own), sizeof(own));
            for (int row = 0; row < rows; row++)
                accumulate(sums, own, row, ((const float *)x)[row * weight->depth + k]);
        }
    }
    int64_t first = number * PANEL, left = weight->outputs - first;
    for (int row = 0; row < rows; row++) {
        float values[PANEL];
        memcpy(values, sums[row], sizeof(values));
        for (int64_t i = 0; i < (left < PANEL ? left : PANEL); i++)
            store(out, row * weight->outputs + first + i, values[i], bfloat16);
    }
}

#define WITH(count) \
    case count: multiply(weight, x, out, number, count, bfloat16); break;

INLINE void by_rows(const packed *weight, const char *x, char *out, int64_t number, int64_t rows, int bfloat16) {
    switch (rows) { WITH(1) WITH(2) WITH(3) WITH(4) WITH(5) WITH(MOST_ROWS) }
}

FOR_EVERY_CPU static void panel_float32(const packed *weight, const char *x, char *out, int64_t number, int64_t rows) {
    by_rows(weight, x, out, number, rows, 0);
}

FOR_EVERY_CPU static void panel_bfloat16(const packed *weight, const char *x, char *out, int64_t number, int64_t rows) {
    by_rows(weight, x, out, number, rows, 1);
}

static void multiply_panel(const packed *weight, const char *x, char *out, int64_t number, int64_t rows) {
    (weight->bfloat16 ? panel_bfloat16 : panel_float32)(weight, x, out, number, rows);
}

static int64_t panels(const packed *weight) { return (weight->outputs + PANEL - 1) / PANEL; }

// x [rows, K] -> out [rows, N], at most MOST_ROWS of them.
void packed_product(const packed *weight, const char *x, char *out, int64_t rows) {
#pragma omp parallel for schedule(static)
    for (int64_t number = 0; number < panels(weight); number++) multiply_panel(weight, x, out, number, rows);
}

typedef struct {
    const layout *module;  // without deltas
    const packed *keys, *values;  // of all projections together; of each
    char *scores;  // room for [MOST_ROWS, all tokens]
    char *const *weights;  // for each projection [MOST_ROWS, its tokens]
} packed_module;

// x [rows, K] -> out [projections, rows, N]; the rest as for `row_operation`.
void packed_pattention(const packed_module *own, int64_t rows, const char *x, char *out, const float *tau,
                       int64_t tau_stride, const float *coupling, int64_t coupling_stride, int64_t report, double *sums,
                       int64_t sums_stride) {
    const char *scores = own->scores;
    step now = {&scores, own->weights, tau, coupling, tau_stride, coupling_stride, report, sums, sums_stride};
    int64_t count = panels(own->values), bytes = own->keys->bfloat16 ? 2 : 4;
#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (int64_t number = 0; number < panels(own->keys); number++)
            multiply_panel(own->keys, x, own->scores, number, rows);
#pragma omp for schedule(static)
        for (int64_t row = 0; row < rows; row++) operate_on_row(own->module, &now, row);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < own->module->projections * count; i++) {
            int64_t p = i / count;
            char *output = out + p * rows * own->values->outputs * bytes;
            multiply_panel(own->values + p, own->weights[p], output, i % count, rows);
        }
    }
}
