"""Compares the built-in rules with PyTorch 1.13, bit for bit: torch_test.py PATH_OF_DESCENT_DUMP

This is the profile torch1-fma. torch's own optimizers run as they do by default, with foreach=False, and with
foreach=True where that has the same arithmetic. lion and lamb, which torch has not, are written in torch's operations.
"""


import math
import subprocess
import sys
import warnings

warnings.filterwarnings("ignore")
STEPS = 60
# Whole vectors of 8 and of 16, one less, one more; stripes of 1024; and enough for two of torch's threads.
SHAPES = [(), (1,), (3,), (7,), (8,), (4, 4), (17,), (31,), (10, 100), (1023,), (1024,), (25, 41), (4099,), (40001,)]

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
    ("adagrad", dict(lr=0.01), 1.0),
    ("adagrad", dict(lr=0.03, lr_decay=0.05, weight_decay=0.02), 1.0),
    ("adagrad", dict(lr=0.03, initial_accumulator_value=0.1, eps=1e-6), 128.0),
    ("rmsprop", dict(lr=0.01), 1.0),
    ("rmsprop", dict(lr=0.003, alpha=0.9, eps=1e-6, weight_decay=0.04), 1.0),
    ("rmsprop", dict(lr=0.003, momentum=0.9), 1.0),
    ("rmsprop", dict(lr=0.003, alpha=0.95, momentum=0.7, weight_decay=0.01), 2048.0),
    ("lion", dict(lr=1e-4, betas=(0.9, 0.99)), 1.0),
    ("lion", dict(lr=3e-3, betas=(0.95, 0.98), weight_decay=0.3), 512.0),
    ("lamb", dict(lr=1e-3, eps=1e-6, weight_decay=0.01), 1.0),
    ("lamb", dict(lr=0.02, betas=(0.8, 0.99), eps=1e-5, weight_decay=0.0), 3000.0),
]


class Lion(torch.optim.Optimizer):
    """Algorithm 2 of arXiv:2302.06675."""

    def __init__(self, params, **arguments):
        super().__init__(params, dict(dict(weight_decay=0.0), **arguments))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                mean = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(mean.mul(beta1).add_(p.grad, alpha=1 - beta1).sign_(), alpha=-group["lr"])
                mean.mul_(beta2).add_(p.grad, alpha=1 - beta2)


class Lamb(torch.optim.Optimizer):
    """Algorithm 2 of arXiv:1904.00962; sums of squares are exact."""

    def __init__(self, params, **arguments):
        super().__init__(params, dict(dict(betas=(0.9, 0.999)), **arguments))
        self.steps = 0

    @torch.no_grad()
    def step(self):
        self.steps += 1
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                mean = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
                square = self.state[p].setdefault("exp_avg_sq", torch.zeros_like(p))
                mean.mul_(beta1).add_(p.grad, alpha=1 - beta1)
                square.mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
                root = math.sqrt(1 - beta2**self.steps)
                update = mean.mul(1 / (1 - beta1**self.steps)).div_(square.sqrt().div_(root).add_(group["eps"]))
                if group["weight_decay"]:
                    update.add_(p, alpha=group["weight_decay"])
                norm, update_norm = (math.sqrt(math.fsum((x.double().flatten() ** 2).tolist())) for x in (p, update))
                ratio = norm / update_norm if norm and update_norm else 1.0
                p.add_(update, alpha=-(group["lr"] * ratio))


CLASSES = dict(sgd=torch.optim.SGD, momentum=torch.optim.SGD, nesterov=torch.optim.SGD, adam=torch.optim.Adam,
               adamw=torch.optim.AdamW, adagrad=torch.optim.Adagrad, rmsprop=torch.optim.RMSprop, lion=Lion, lamb=Lamb)
STATES = dict(sgd=[], momentum=["momentum_buffer"], nesterov=["momentum_buffer"], adam=["exp_avg", "exp_avg_sq"],
              adamw=["exp_avg", "exp_avg_sq"], adagrad=["sum"], rmsprop=["square_avg", "momentum_buffer"],
              lion=["exp_avg"], lamb=["exp_avg", "exp_avg_sq"])
DEFAULTS = dict(weight_decay=0.0, momentum=0.0, dampening=0.0, eps=1e-8, alpha=0.99, lr_decay=0.0,
                initial_accumulator_value=0.0)
ORDER = ["lr", "weight_decay", "momentum", "dampening", "beta1", "beta2", "eps", "alpha", "lr_decay",
         "initial_accumulator_value"]


def request(name, arguments, loss_scale, n):
    values = dict(DEFAULTS, **arguments)
    if name == "adamw":
        values["weight_decay"] = arguments.get("weight_decay", 0.01)
    if name == "adagrad":
        values["eps"] = arguments.get("eps", 1e-10)
    values["beta1"], values["beta2"] = arguments.get("betas", (0.9, 0.999))
    numbers = [values[key] for key in ORDER] + [loss_scale]
    return " ".join([name] + [repr(float(v)) for v in numbers] + [str(n), str(STEPS)]) + "\n"


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
    if name == "nesterov":
        arguments = dict(arguments, nesterov=True)
    optimizer = CLASSES[name]([tensor], **arguments)
    inverse = torch.tensor(loss_scale).double().reciprocal().float()  # as GradScaler
    out = np.zeros((STEPS, 3, parameters.size), np.float32)
    for step, gradient in enumerate(gradients):
        tensor.grad = torch.from_numpy(np.array(gradient))
        if loss_scale != 1.0:
            tensor.grad.mul_(inverse)
        optimizer.step()
        out[step, 0] = tensor.detach().numpy().ravel()
        for i, state in enumerate(STATES[name]):
            value = optimizer.state[tensor].get(state)
            if value is not None:
                out[step, 1 + i] = value.numpy().ravel()
    return out


def ways(name, arguments):
    """How torch may compute it: arguments, and what to call them."""
    if name in ("lion", "lamb"):
        return [({}, "")]
    # With foreach=True adagrad computes the rate of a step in float, so lr_decay gives other bits.
    same = "lr_decay" not in arguments
    return [({}, ""), ({"foreach": False}, "foreach=False")] + ([({"foreach": True}, "foreach=True")] if same else [])


def main():
    if not torch.__version__.startswith("1.13"):
        sys.exit(f"torch is {torch.__version__}; the profile torch1-fma is defined by 1.13, which is Debian 12's")
    if not any(isa in torch.__config__.show() for isa in ("usage: AVX2", "usage: AVX512")):
        sys.exit("torch uses no fused multiply-add on this processor; the profile torch1-fma needs one with AVX2")
    torch.set_num_threads(2)
    random = np.random.default_rng(20)
    runs = bad = 0
    for name, arguments, loss_scale in CASES:
        for shape in SHAPES:
            n = math.prod(shape)
            parameters, gradients = make_data(random, n, loss_scale)
            text = request(name, arguments, loss_scale, n).encode()
            answer = subprocess.run([sys.argv[1]], input=text + parameters.tobytes() + gradients.tobytes(),
                                    stdout=subprocess.PIPE, check=True).stdout
            ours = np.frombuffer(answer, np.uint32).reshape(STEPS, 3, n)
            for more, way in ways(name, arguments):
                runs += 1
                theirs = torch_run(name, dict(arguments, **more), loss_scale, parameters.reshape(shape),
                                   gradients.reshape((STEPS, *shape))).view(np.uint32)
                wrong = np.argwhere(ours != theirs)
                if len(wrong):
                    step, array, i = wrong[0]
                    print(f"{name} {arguments} {way} loss_scale {loss_scale} shape {shape}: {len(wrong)} differ; "
                          f"first: step {step + 1} array {array} element {i}: {ours[step, array, i]:08x} instead of "
                          f"{theirs[step, array, i]:08x}")
                    bad += 1
    print(f"{runs} runs of {STEPS} steps, {bad} differ")
    return 1 if bad else 0


sys.exit(main())
