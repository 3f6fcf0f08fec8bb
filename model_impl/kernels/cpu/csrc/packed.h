// Weights as oneDNN packs them, and a Pattention on such weights (packed.c).

#ifndef PACKED_KERNEL_H
#define PACKED_KERNEL_H

#include "rows.h"

enum { PANEL = 64, LINE = 4 * PANEL };  // outputs and bytes of a line; see packed.c
enum { MAX_SMALL_BATCH = 64 };          // rows; model_impl/kernels/cpu/weights.py

typedef struct {
    const char *weights;
    int64_t outputs, depth;  // N and K; in bfloat16 K is even
    int64_t bfloat16;
    int64_t panel_bytes;
} packed;

typedef struct {
    const layout *module;  // without deltas
    const packed *keys, *values;  // of all projections together; of each
    char *scores;  // room for [rows, all tokens]
    char *const *weights;  // for each projection room for [rows, its tokens]
    const int64_t *members;  // [rows]: 1 + the row's ensemble member, 0 for plain rows; null where masks are not made
    const uint8_t *const *left_out;  // for each projection [1 + members, its tokens], 1 where left out; null for none
} packed_module;

// x [rows, K] -> out [projections, rows, N]. All threads of a parallel region must call it; it ends with a barrier.
// `now` has no scores and weights yet.
void sum_panel(const packed *weight, const char *x, int64_t number, int64_t first, int64_t stop, float *sums,
               int64_t rows);

void pattention_of_rows(const packed_module *own, int64_t rows, const char *x, char *out, step now);

#endif
