"""Compares the built-in rules with PyTorch 1.13, bit for bit: torch_test.py PATH_OF_DESCENT_DUMP"""

import subprocess
import sys
import warnings

warnings.filterwarnings("ignore")
STEPS = 20
SIZES = [1, 7, 16, 31, 1000, 4099]

try:
    import numpy as np
    import torch
except ImportError as error:
    sys.exit(f"{error}: install python3-numpy and python3-torch (tools/install-deps test)")

# name of the rule, arguments of torch's optimizer, loss_scale
CASES = [
    ("sgd", dict(lr=0.1), 1.0),
    ("sgd", dict(lr=0.03, weight_decay=0.0123), 1.0),
    ("sgd", dict(lr=0.03, weight_decay=0.01), 3000.0),
    ("momentum", dict(lr=0.1, momentum=0.9), 1.0),
    ("momentum", dict(lr=0.07, momentum=0.0, dampening=0.3), 1.0),
    ("momentum", dict(lr=0.07, momentum=0.83, dampening=0.3, weight_decay=0.02), 1.0),
    ("momentum", dict(lr=0.07, momentum=0.9, dampening=1.0), 65536.0),
    ("nesterov", dict(lr=0.7, momentum=0.9), 1.0),
    ("nesterov", dict(lr=0.05, momentum=0.95, weight_decay=0.01), 1.0),
    ("adam", dict(lr=1e-3), 1.0),
    ("adam", dict(lr=0.02, betas=(0.8, 0.99), eps=1e-6, weight_decay=0.05), 1.0),
    ("adam", dict(lr=0.02, betas=(0.0, 0.9), eps=1e-3), 7.0),
    ("adamw", dict(lr=1e-3), 1.0),
    ("adamw", dict(lr=0.013, betas=(0.85, 0.97), eps=1e-5, weight_decay=0.3), 1.0),
    ("adamw", dict(lr=0.013, weight_decay=0.0), 1024.0),
]
CLASSES = dict(sgd=torch.optim.SGD, momentum=torch.optim.SGD, nesterov=torch.optim.SGD,
               adam=torch.optim.Adam, adamw=torch.optim.AdamW)
STATES = dict(sgd=[], momentum=["momentum_buffer"], nesterov=["momentum_buffer"],
              adam=["exp_avg", "exp_avg_sq"], adamw=["exp_avg", "exp_avg_sq"])


def request(name, arguments, loss_scale, n):
    default = 0.01 if name == "adamw" else 0.0
    betas = arguments.get("betas", (0.9, 0.999))
    values = [arguments["lr"], arguments.get("weight_decay", default), arguments.get("momentum", 0.0),
              arguments.get("dampening", 0.0), betas[0], betas[1], arguments.get("eps", 1e-8), loss_scale]
    return " ".join([name] + [repr(float(v)) for v in values] + [str(n), str(STEPS)]) + "\n"


def make_data(random, n, loss_scale):
    """Values of very different sizes, with zeros and denormals among them."""
    parameters = random.standard_normal(n).astype(np.float32)
    gradients = random.standard_normal((STEPS, n)) * np.exp(random.uniform(-12, 4, (STEPS, n)))
    gradients[random.random((STEPS, n)) < 0.02] = 0.0
    gradients[random.random((STEPS, n)) < 0.02] = 3e-40
    return parameters, (gradients * loss_scale).astype(np.float32)


def torch_run(name, arguments, loss_scale, parameters, gradients):
    """After each step: parameters, state 0, state 1."""
    tensor = torch.nn.Parameter(torch.from_numpy(parameters.copy()))
    optimizer = CLASSES[name]([tensor], foreach=False, nesterov=True, **arguments) if name == "nesterov" else \
        CLASSES[name]([tensor], foreach=False, **arguments)
    inverse = torch.tensor(loss_scale).double().reciprocal().float()  # as GradScaler
    out = []
    for gradient in gradients:
        tensor.grad = torch.from_numpy(gradient.copy())
        if loss_scale != 1.0:
            tensor.grad.mul_(inverse)
        optimizer.step()
        arrays = [tensor.detach().numpy().copy()]
        for state in STATES[name]:
            value = optimizer.state[tensor].get(state)
            arrays.append(np.zeros_like(parameters) if value is None else value.numpy().copy())
        while len(arrays) < 3:
            arrays.append(np.zeros_like(parameters))
        out.append(arrays)
    return np.array(out)


def main():
    if not torch.__version__.startswith("1.13"):
        sys.exit(f"torch is {torch.__version__}; the profile torch1-fma is defined by 1.13, which is Debian 12's")
    if not any(isa in torch.__config__.show() for isa in ("usage: AVX2", "usage: AVX512")):
        sys.exit("torch uses no fused multiply-add on this processor; the profile torch1-fma needs one with AVX2")
    torch.set_num_threads(1)
    random = np.random.default_rng(20)
    bad = 0
    for name, arguments, loss_scale in CASES:
        for n in SIZES:
            parameters, gradients = make_data(random, n, loss_scale)
            text = request(name, arguments, loss_scale, n).encode()
            answer = subprocess.run([sys.argv[1]], input=text + parameters.tobytes() + gradients.tobytes(),
                                    stdout=subprocess.PIPE, check=True).stdout
            ours = np.frombuffer(answer, np.uint32).reshape(STEPS, 3, n)
            theirs = torch_run(name, arguments, loss_scale, parameters, gradients).view(np.uint32)
            wrong = np.argwhere(ours != theirs)
            if len(wrong):
                step, array, i = wrong[0]
                print(f"{name} {arguments} loss_scale {loss_scale} n {n}: {len(wrong)} differ; first: step "
                      f"{step + 1} array {array} element {i}: {ours[step, array, i]:08x} instead of "
                      f"{theirs[step, array, i]:08x}")
                bad += 1
    print(f"{len(CASES) * len(SIZES)} runs of {STEPS} steps, {bad} differ")
    return 1 if bad else 0


sys.exit(main())
