// A module and a step, as the row operation reads them (rows.c).

#ifndef ROW_KERNEL_H
#define ROW_KERNEL_H

#include "common.h"

// The tokens of one projection and growth stage (or delta): columns of a matrix of scores, and of one of weights.
typedef struct {
    int64_t scores, first_score, scores_stride;     // which matrix, the first column in it, its columns
    int64_t weights, first_weight, weights_stride;  // likewise
    int64_t width;
} segment;

typedef struct {
    int64_t projections, segments;  // segments of each projection
    int64_t bfloat16, gelu_first;
    const segment *table;  // [projections, segments]
} layout;

typedef struct {
    const char *const *scores;
    char *const *weights;
    const float *tau, *coupling;  // [rows, projections, segments], [rows, segments, segments]
    int64_t tau_stride, coupling_stride;  // elements from row to row; 0 where one row serves all
} step;

// One row of the row operation; rows may be taken in any order and at once.
void operate_on_row(const layout *module, const step *now, int64_t row);

#endif
