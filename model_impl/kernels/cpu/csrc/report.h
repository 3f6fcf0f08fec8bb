// Structures of report.c; Python fills them.

#ifndef REPORT_KERNEL_H
#define REPORT_KERNEL_H

#include "packed.h"

typedef struct {
    const packed *values;  // value tokens as a product's weight [width, tokens]
    const char *weights;   // [rows, tokens]
    int64_t first, stop;   // the lines of the tokens that count
} part;

typedef struct {
    int64_t width, bfloat16, words, strongest, rivals;
    const packed *values;     // the value tokens of the last feed-forward
    const char *head, *norm;  // [vocabulary, width], [width]
    double eps, scale;        // of the last norm; r (1 - r) / 2
} reporter;

typedef struct {
    int64_t rows, segments;
    const int64_t *numbers;                        // [rows]: where each lies in the matrices below; null: in order
    const char *weights, *residual, *embedded;     // [.., tokens], [.., width], [.., width]
    const float *added;                            // [.., segments - 1, width]
    const float *logits;                           // [rows, words]
    const int64_t *ids, *chosen;                   // [rows, words], [rows]
    float *out;                                    // [rows, columns]: epistemic, then one column per segment if several
    int64_t columns;
} reported;

#endif
