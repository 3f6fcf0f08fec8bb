// Where the fields lie of the structures that Python fills (model_impl/kernels/cpu/library.py `mirrors`).

#include <stddef.h>

#include "report.h"
#include "stack.h"

#define FIELD(structure, field) {#structure, #field, offsetof(structure, field)}
#define SIZE(structure) {#structure, "", sizeof(structure)}

static const struct {
    const char *structure, *field;
    int64_t offset;
} places[] = {
    SIZE(segment), FIELD(segment, scores), FIELD(segment, first_score), FIELD(segment, scores_stride),
        FIELD(segment, weights), FIELD(segment, first_weight), FIELD(segment, weights_stride), FIELD(segment, width),
    SIZE(layout), FIELD(layout, projections), FIELD(layout, segments), FIELD(layout, bfloat16),
        FIELD(layout, gelu_first), FIELD(layout, table),
    SIZE(packed), FIELD(packed, weights), FIELD(packed, outputs), FIELD(packed, depth), FIELD(packed, bfloat16),
        FIELD(packed, panel_bytes),
    SIZE(packed_module), FIELD(packed_module, module), FIELD(packed_module, keys), FIELD(packed_module, values),
        FIELD(packed_module, scores), FIELD(packed_module, weights),
        FIELD(packed_module, members), FIELD(packed_module, left_out),
    SIZE(norm), FIELD(norm, weight), FIELD(norm, bias), FIELD(norm, eps),
    SIZE(block), FIELD(block, layer), FIELD(block, width), FIELD(block, head_dim), FIELD(block, rotary_dim),
        FIELD(block, bfloat16), FIELD(block, before), FIELD(block, between), FIELD(block, query_key_value),
        FIELD(block, output), FIELD(block, ffn), FIELD(block, rotation), FIELD(block, normed), FIELD(block, made),
    SIZE(stack_step), FIELD(stack_step, rows), FIELD(stack_step, positions), FIELD(stack_step, x),
        FIELD(stack_step, query_key_value), FIELD(stack_step, mixed), FIELD(stack_step, tau),
        FIELD(stack_step, coupling), FIELD(stack_step, tau_stride), FIELD(stack_step, coupling_stride),
        FIELD(stack_step, last), FIELD(stack_step, residual),
    SIZE(part), FIELD(part, values), FIELD(part, weights), FIELD(part, first), FIELD(part, stop),
    SIZE(reporter), FIELD(reporter, width), FIELD(reporter, bfloat16), FIELD(reporter, words),
        FIELD(reporter, strongest), FIELD(reporter, rivals), FIELD(reporter, values), FIELD(reporter, head),
        FIELD(reporter, norm), FIELD(reporter, eps), FIELD(reporter, scale),
    SIZE(reported), FIELD(reported, rows), FIELD(reported, segments), FIELD(reported, numbers),
        FIELD(reported, weights), FIELD(reported, residual), FIELD(reported, embedded), FIELD(reported, added),
        FIELD(reported, logits), FIELD(reported, ids), FIELD(reported, chosen), FIELD(reported, out),
        FIELD(reported, columns),
};

// The offset of a field, or the size of the structure where `field` is empty; -1 where there is none of these names.
int64_t field_offset(const char *structure, const char *field) {
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
        if (!strcmp(places[i].structure, structure) && !strcmp(places[i].field, field)) return places[i].offset;
    return -1;
}
