"""The optimizers in double precision, as PyTorch defines them; values are lists of floats, state is a dict."""
import math


def step(name, values, gradient, state, lr, momentum=0.9, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    """One update of one tensor; returns the new values and changes state in place."""
    if name == "adamw":
        values = [p - lr * weight_decay * p for p in values]
    elif weight_decay:
        gradient = [g + weight_decay * p for p, g in zip(values, gradient)]
    if name == "sgd":
        return [p - lr * g for p, g in zip(values, gradient)]
    if name in ("momentum", "nesterov"):
        old = state.get("momentum_buffer") or [0.0] * len(values)
        buffer = state["momentum_buffer"] = [momentum * b + g for b, g in zip(old, gradient)]
        if name == "nesterov":
            buffer = [g + momentum * b for b, g in zip(buffer, gradient)]
        return [p - lr * b for p, b in zip(values, buffer)]
    count = state["step"] = state.get("step", 0) + 1
    zeros = [0.0] * len(values)
    first = state["exp_avg"] = [betas[0] * m + (1 - betas[0]) * g
                                for m, g in zip(state.get("exp_avg", zeros), gradient)]
    second = state["exp_avg_sq"] = [betas[1] * v + (1 - betas[1]) * g * g
                                    for v, g in zip(state.get("exp_avg_sq", zeros), gradient)]
    size = lr / (1 - betas[0] ** count)
    scale = math.sqrt(1 - betas[1] ** count)
    return [p - size * m / (math.sqrt(v) / scale + eps) for p, m, v in zip(values, first, second)]
