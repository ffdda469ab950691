/* The public interface of gradfs coprocessors, installed as <gradfs/coproc.h>. Plain C, one header.
 *
 * An update rule is a pure function over spans: it gets parameters, state, gradient and hyperparameters, and
 * updates parameters and state in place. The engine does sharding, order, crash safety and threads.
 *
 *   #include <gradfs/coproc.h>
 *   static int step(const gradfs_span* s, const gradfs_hyper* h) {
 *     for (size_t i = 0; i < s->n; i++) s->param[i] -= h->lr * s->grad[i];
 *     return 0;
 *   }
 *   GRADFS_RULE(.name = "mysgd", .apply = step);
 *
 * Structs only grow at their end, and begin with their size: read a field that is newer than ABI version 1
 * only if it lies inside `size`.
 */
#ifndef GRADFS_COPROC_H
#define GRADFS_COPROC_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GRADFS_ABI_VERSION 1u
#define GRADFS_STATES_MAX 4

/* A part of one tensor. All arrays have n elements, are aligned for float, and do not overlap. */
typedef struct gradfs_span {
  size_t size; /* sizeof(gradfs_span) of the engine */
  size_t n;    /* elements; never 0 */
  float* param;
  const float* grad;
  float* state[GRADFS_STATES_MAX]; /* in the order of gradfs_rule.state_names; NULL beyond them; zeros at step
                                      1 */
} gradfs_span;

/* The hyperparameters of one update of one tensor: groups and schedule are already in them. A rule uses those
 * that mean something to it. They are doubles, as PyTorch computes its scalars: round to float where you use
 * them. */
typedef struct gradfs_hyper {
  size_t size;   /* sizeof(gradfs_hyper) of the engine */
  uint64_t step; /* updates of this tensor, this one included: 1 is the first */
  double lr;
  double weight_decay;
  double momentum;
  double dampening;
  double beta1;
  double beta2;
  double eps;
  int32_t nesterov;                 /* 0 or 1 */
  float grad_scale;                 /* with GRADFS_RULE_SCALES: multiply each grad element by it; else 1 */
  double alpha;                     /* rmsprop: of the running average of squares */
  double lr_decay;                  /* adagrad: the rate is lr / (1 + (step - 1) * lr_decay) */
  double initial_accumulator_value; /* adagrad: takes the state's place at step 1 */
  double trust_ratio;               /* for a rule with norms: norm of the tensor's parameters over norm of its
                                       update, 1 where one of them is 0; in norms itself, and without it, 1 */
} gradfs_hyper;

/* apply multiplies by grad_scale itself. Without it the engine hands over a gradient that is already scaled.
 */
#define GRADFS_RULE_SCALES 1u

typedef struct gradfs_rule {
  size_t size;          /* sizeof(gradfs_rule) of the plugin */
  uint32_t abi_version; /* GRADFS_ABI_VERSION of the plugin */
  uint32_t flags;       /* GRADFS_RULE_... */
  const char* name;     /* as in descent.toml */
  const char*
      state_names[GRADFS_STATES_MAX]; /* F32 arrays of the tensor's shape, "exp_avg"; NULL ends the list */
  /* Pure: the result depends on the arguments alone. Called with any sub-span of a tensor, on any thread, and
   * again with the old values after a crash. Returns 0; anything else stops the binding. */
  int (*apply)(const gradfs_span* span, const gradfs_hyper* hyper);
  /* For rules whose step depends on norms of the whole tensor, as LAMB's (NULL for all others). Only reads
   * the span. squares[0]: the sum of the squares of its parameters; squares[1]: of the update before the
   * trust ratio and the rate. Called for every span of a tensor before the first apply to it; the engine adds
   * the spans' sums in their order, so that the ratio does not depend on threads, and keeps it, so that an
   * apply after a crash gets the same one. Pure, any thread, returns as apply does. */
  int (*norms)(const gradfs_span* span, const gradfs_hyper* hyper, double squares[2]);
} gradfs_rule;

#if defined(__GNUC__)
#define GRADFS_EXPORT __attribute__((visibility("default"), used))
#else
#define GRADFS_EXPORT
#endif

extern const gradfs_rule gradfs_rule_entry;

/* Once in a plugin, at file scope: the designated initializers of its gradfs_rule. */
#define GRADFS_RULE(...)                                \
  GRADFS_EXPORT const gradfs_rule gradfs_rule_entry = { \
      .size = sizeof(gradfs_rule), .abi_version = GRADFS_ABI_VERSION, __VA_ARGS__}

#ifdef __cplusplus
}
#endif

#endif
