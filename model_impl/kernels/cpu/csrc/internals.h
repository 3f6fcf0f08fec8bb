// The tables of a model's Pattentions (internals.c).

#ifndef INTERNALS_KERNEL_H
#define INTERNALS_KERNEL_H

#include "rows.h"

typedef struct {
    int64_t pattentions, projections, segments;  // pattentions: all projections of all layers
    int64_t places, stages;  // places: one per growth stage of the checkpoint, which come first, and one for deltas
    const int64_t *counts;  // [projections, segments]: parameter tokens
} reported;

#endif
