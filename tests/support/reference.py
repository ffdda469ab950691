"""The optimizers in double precision, as PyTorch defines them; values are lists of floats, state is a dict."""
import math


def step(name, values, gradient, state, lr, momentum=None, betas=None, eps=None, weight_decay=0.0, alpha=0.99,
         lr_decay=0.0, initial_accumulator_value=0.0):
    """One update of one tensor; returns the new values and changes state in place."""
    momentum = {"rmsprop": 0.0}.get(name, 0.9) if momentum is None else momentum
    betas = {"lion": (0.9, 0.99)}.get(name, (0.9, 0.999)) if betas is None else betas
    eps = {"adagrad": 1e-10, "lamb": 1e-6}.get(name, 1e-8) if eps is None else eps
    count = state["step"] = state.get("step", 0) + 1
    zeros = [0.0] * len(values)
    if name in ("adamw", "lion"):
        values = [p - lr * weight_decay * p for p in values]
    elif weight_decay and name != "lamb":
        gradient = [g + weight_decay * p for p, g in zip(values, gradient)]
    if name == "sgd":
        return [p - lr * g for p, g in zip(values, gradient)]
    if name in ("momentum", "nesterov"):
        old = state.get("momentum_buffer", zeros)
        buffer = state["momentum_buffer"] = [momentum * b + g for b, g in zip(old, gradient)]
        if name == "nesterov":
            buffer = [g + momentum * b for b, g in zip(buffer, gradient)]
        return [p - lr * b for p, b in zip(values, buffer)]
    if name == "adagrad":
        sums = state.get("sum", [initial_accumulator_value] * len(values))
        sums = state["sum"] = [s + g * g for s, g in zip(sums, gradient)]
        rate = lr / (1 + (count - 1) * lr_decay)
        return [p - rate * g / (math.sqrt(s) + eps) for p, g, s in zip(values, gradient, sums)]
    if name == "rmsprop":
        square = state["square_avg"] = [alpha * v + (1 - alpha) * g * g
                                        for v, g in zip(state.get("square_avg", zeros), gradient)]
        change = [g / (math.sqrt(v) + eps) for g, v in zip(gradient, square)]
        if momentum:
            old = state.get("momentum_buffer", zeros)
            change = state["momentum_buffer"] = [momentum * b + c for b, c in zip(old, change)]
        return [p - lr * c for p, c in zip(values, change)]
    old = state.get("exp_avg", zeros)
    keep = betas[1] if name == "lion" else betas[0]
    first = state["exp_avg"] = [keep * m + (1 - keep) * g for m, g in zip(old, gradient)]
    if name == "lion":
        seen = [betas[0] * m + (1 - betas[0]) * g for m, g in zip(old, gradient)]
        return [p - lr * ((c > 0) - (c < 0)) for p, c in zip(values, seen)]
    second = state["exp_avg_sq"] = [betas[1] * v + (1 - betas[1]) * g * g
                                    for v, g in zip(state.get("exp_avg_sq", zeros), gradient)]
    scale = math.sqrt(1 - betas[1] ** count)
    change = [m / (1 - betas[0] ** count) / (math.sqrt(v) / scale + eps) for m, v in zip(first, second)]
    if name == "lamb":
        change = [c + weight_decay * p for c, p in zip(change, values)]
        norm, change_norm = (math.sqrt(sum(x * x for x in of)) for of in (values, change))
        lr *= norm / change_norm if norm and change_norm else 1.0
    return [p - lr * c for p, c in zip(values, change)]
