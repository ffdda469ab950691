"""A network trained by a usual PyTorch loop, whose batches are a function of worker and step.

    torch_worker.py MODEL_DIR WORKER LAST_STEP [COPY_OR_MAP]

trains as a process of its own, from the step after the worker's last that counted; LAST_STEP is the first that it does
not take. Prints each step and its loss.
"""
import sys

import torch

SIZES = (12, 20, 3)
ROWS = 16


def network(seed=0):
    """Odd sizes; a parameter without a gradient among them, and one that is frozen."""
    torch.manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Linear(SIZES[0], SIZES[1]), torch.nn.ReLU(), torch.nn.Linear(SIZES[1], SIZES[2]))
    net.unused = torch.nn.Parameter(torch.randn(5))
    net.frozen = torch.nn.Parameter(torch.randn(4), requires_grad=False)
    return net


def batch(worker, step):
    """Inputs, and the class that a fixed linear function gives them."""
    generator = torch.Generator().manual_seed(1000003 * worker + step)
    inputs = torch.randn(ROWS, SIZES[0], generator=generator)
    planted = torch.randn(SIZES[0], SIZES[2], generator=torch.Generator().manual_seed(7))
    return inputs, (inputs @ planted).argmax(1)


def train(net, optimizer, worker, steps, done=lambda step, loss: None):
    """The usual loop."""
    for step in steps:
        inputs, labels = batch(worker, step)
        optimizer.zero_grad(set_to_none=step % 2 == 0)
        loss = torch.nn.functional.cross_entropy(net(inputs), labels)
        loss.backward()
        optimizer.step()
        done(step, loss.item())


def evaluate(net):
    with torch.no_grad():
        losses = [torch.nn.functional.cross_entropy(net(x), y) for x, y in (batch(99, step) for step in range(10))]
    return float(sum(losses)) / len(losses)


def main(directory, worker, last, parameters="copy"):
    import gradfs.torch
    torch.set_num_threads(1)
    net = network(seed=1)  # not what the model begins with
    optimizer = gradfs.torch.RemoteOptimizer(net, directory, run="r", worker=f"w{worker}", parameters=parameters)
    train(net, optimizer, int(worker), range(optimizer.next_step, int(last)),
          lambda step, loss: print(step, loss, flush=True))
    optimizer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
