"""A trainer that knows only files: pushes one gradient after the other and notes each that was acknowledged.

    pusher.py MODEL_DIR file|slot WORKER FIRST_STEP ACKS STOP [--again]

Gradient number `step` of a worker is pattern(worker, step); ACKS gets the step as a line once its close or fsync has
returned; the trainer ends well when the file STOP exists. Any error ends it with 1, but with --again EEXIST means that
the step had counted, and is an acknowledgement.
"""
import array
import errno
import os
import sys

import safetensors
from safetensors import f32

PERIOD = 11
SHAPES = {"w": [PERIOD, 20000], "b": [PERIOD, 300]}


def pattern(worker, step):
    """The first PERIOD elements; every tensor repeats them. Integers between -5 and 5, none of the tensors all zero."""
    return [(7 * i + 31 * worker + 13 * step) % PERIOD - 5 for i in range(PERIOD)]


def tensors(element):
    """The model or gradient that repeats these PERIOD elements."""
    return {name: f32(shape, _repeat(element, shape)) for name, shape in SHAPES.items()}


def _repeat(element, shape):
    return array.array("f", element) * (shape[0] * shape[1] // PERIOD)


def main(folder, way, worker, step, acks, stop, again):
    patterns = [b"".join(map(safetensors.bytes_of, tensors(pattern(0, k)).values())) for k in range(PERIOD)]
    by_first = {tuple(pattern(0, k)): data for k, data in enumerate(patterns)}
    header = safetensors.header_of(tensors(pattern(0, 0)))
    log = os.open(acks, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    slot = os.open(f"{folder}/slots/w{worker}", os.O_RDWR | os.O_CREAT) if way == "slot" else -1
    while not os.path.exists(stop):
        header["__metadata__"] = {"run": "crash", "worker": f"w{worker}", "step": str(step)}
        content = safetensors.raw(header, by_first[tuple(pattern(worker, step))], pad_to=512)
        try:
            if way == "slot":
                os.pwrite(slot, content, 0)
                os.fsync(slot)
            else:
                fd = os.open(f"{folder}/gradients/w{worker}-{step}", os.O_WRONLY | os.O_CREAT, 0o644)
                view = memoryview(content)
                while view:
                    view = view[os.write(fd, view):]
                os.close(fd)
        except OSError as error:
            if not (again and error.errno == errno.EEXIST):
                sys.exit(f"worker {worker}, step {step}: {error}")
        again = False
        os.write(log, b"%d\n" % step)
        step += 1


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5], sys.argv[6], "--again" in sys.argv)
