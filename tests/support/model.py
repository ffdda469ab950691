"""A model directory as a trainer sees it: files, and nothing else. Values are small integers, so F32 is exact."""
import array
import json
import os
import zlib

import safetensors
from case import read_file, write_file
from safetensors import f32

_serial = [0]


def small_tensors(seed=0):
    """A model of four tensors with odd sizes; deterministic integers between -8 and 8."""
    shapes = {"fc.weight": [37, 31], "fc.bias": [31], "head": [1, 5, 3], "scale": []}
    return {name: f32(shape, integers(shape, seed + k)) for k, (name, shape) in enumerate(shapes.items())}


def count(shape):
    n = 1
    for side in shape:
        n *= side
    return n


def integers(shape, seed):
    return array.array("f", ((i * 7919 + seed * 104729 + i * i) % 17 - 8 for i in range(count(shape))))


def minus(left, right, scale=1.0):
    """left - scale * right, tensor by tensor; a tensor that right lacks stays."""
    result = {}
    for name, tensor in left.items():
        if name in right:
            pairs = zip(tensor.data, right[name].data)
            tensor = f32(tensor.shape, array.array("f", (a - scale * b for a, b in pairs)))
        result[name] = tensor
    return result


class Bits(dict):
    """name -> bytes of a tensor. Printed short: a comparison of these that fails must not print all of a model."""

    def __repr__(self):
        heads = (f"{name}: {list(array.array('f', data[:16]))} crc {zlib.crc32(data):08x}"
                 for name, data in self.items())
        return "{" + ", ".join(heads) + "}"


def data_of(tensors):
    return Bits((name, tensor.data.tobytes()) for name, tensor in tensors.items())


class Model:
    """Makes the model on construction, by `fsctl model create --from`, with SGD at rate 1 unless told otherwise."""

    def __init__(self, cluster, tensors=None, optimizer="sgd", lr=1.0):
        _serial[0] += 1
        self.cluster = cluster
        self.name = f"m{_serial[0]}-{os.getpid()}"
        self.path = f"/models/{self.name}"
        self.dir = cluster.path("models", self.name)
        self.start = tensors or small_tensors()
        seed_file = cluster.local(f"{self.name}.safetensors")
        safetensors.write(seed_file, self.start)
        cluster.fsctl("model", "create", self.path, "--from", seed_file, "--optimizer", optimizer, "--lr", lr)
        os.unlink(seed_file)

    def file(self, *names):
        return os.path.join(self.dir, *names)

    @property
    def parameters(self):
        return self.file("model.safetensors")

    def read(self):
        return safetensors.read(self.parameters).tensors

    def bits(self):
        return data_of(self.read())

    def push(self, tensors, name="g", **metadata):
        write_file(self.file("gradients", name), safetensors.pack(tensors, metadata))

    def version(self):
        return int(os.getxattr(self.parameters, "user.gradfs.version"))

    def status(self):
        return json.loads(read_file(self.file("status.json")))

    def rejected(self):
        return sorted(os.listdir(self.file("rejected")))

    def reason(self, name):
        return os.getxattr(self.file("rejected", name), "user.gradfs.reason").decode()

    def configure(self, text):
        write_file(self.file("descent.toml"), text.encode())


def config(name, lr, **more):
    """The text of a descent.toml."""
    lines = ["[optimizer]", f'name = "{name}"', f"lr = {lr}"]
    lines += [f"{key} = {value}" for key, value in more.items()]
    return "\n".join(lines) + "\n"
