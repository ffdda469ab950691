"""Files that are no gradient of a model, each with the errno that must refuse it."""
import array
import errno
import gzip
import json
import pickle
import random
import struct

import safetensors
from safetensors import Tensor, f32, header_of


def _data(tensors):
    return b"".join(map(safetensors.bytes_of, tensors.values()))


def _with_offsets(tensors, change, data=None):
    """The file with data_offsets (a dict of name to [begin, end]) changed in place by a function."""
    header = header_of(tensors)
    offsets = {name: entry["data_offsets"] for name, entry in header.items()}
    change(offsets)
    return safetensors.raw(header, _data(tensors) if data is None else data)


def _with_value(tensors, name, value):
    values = array.array("f", tensors[name].data)
    values[len(values) // 2] = value
    return safetensors.pack({**tensors, name: f32(tensors[name].shape, values)})


def bad_files(tensors):
    """kind -> (content, errno). tensors is a good gradient, its first tensor two-dimensional and not square, of at
    least 64 elements, and not the only one."""
    names = list(tensors)
    first, last = names[0], names[-1]
    good = safetensors.pack(tensors)
    header_bytes = struct.unpack_from("<Q", good)[0]
    rows, columns = tensors[first].shape
    turned = {**tensors, first: f32([columns, rows], tensors[first].data)}
    flat = {**tensors, first: f32([rows * columns], tensors[first].data)}
    smaller = {**tensors, first: f32([rows - 1, columns], tensors[first].data[columns:])}
    renamed = {("no.such.tensor" if name == last else name): tensor for name, tensor in tensors.items()}
    size = len(tensors[first].data)
    integers = {**tensors, first: Tensor("I32", tensors[first].shape, bytes(4 * size))}
    doubles = {**tensors, first: Tensor("F64", tensors[first].shape, bytes(8 * size))}
    strange = {**tensors, first: Tensor("F99", tensors[first].shape, bytes(4 * size))}
    entry = json.dumps(header_of({first: tensors[first]})[first])
    twice = f'{{"{first}": {entry}, "{first}": {entry}}}'.encode()
    huge = header_of(tensors)
    huge[first]["shape"] = [rows * columns + (1 << 62)]  # times 4 bytes is right modulo 2^64
    negative = header_of(tensors)
    negative[first]["shape"] = [-rows, -columns]
    mistyped = header_of(tensors)
    mistyped[first]["data_offsets"] = ["0", "4"]

    def overlap(offsets):
        begin, end = offsets[last]
        offsets[last][:] = [begin - 4, end - 4]

    def outside(offsets):
        begin, end = offsets[last]
        offsets[last][:] = [begin + (1 << 40), end + (1 << 40)]

    def wrapped(offsets):
        offsets[last][:] = [(1 << 64) - 8, (1 << 64) - 4]

    def backwards(offsets):
        offsets[first].reverse()

    def hole(offsets):
        for name in names[1:]:
            offsets[name][:] = [at + 8 for at in offsets[name]]

    def too_long(offsets):
        offsets[last][1] += 4

    data = _data(tensors)
    holed = data[:4 * size] + bytes(8) + data[4 * size:]
    invalid = {
        "empty": b"",
        "four_bytes": good[:4],
        "only_a_length": good[:8],
        "truncated_header": good[:8 + header_bytes // 2],
        "truncated_data": good[:-4],
        "trailing_bytes": good + bytes(16),
        "header_length_2_63": struct.pack("<Q", 1 << 63) + good[8:],
        "header_length_all_ones": struct.pack("<Q", (1 << 64) - 1) + good[8:],
        "header_length_0": struct.pack("<Q", 0) + good[8:],
        "header_is_not_json": safetensors.raw(b'{"w": ', data),
        "header_is_a_list": safetensors.raw(b"[1, 2, 3]", data),
        "header_nested_deep": safetensors.raw(b'{"w": ' + b"[" * 100000 + b"]" * 100000 + b"}", data),
        "duplicate_keys": safetensors.raw(twice, safetensors.bytes_of(tensors[first])),
        "offsets_overlap": _with_offsets(tensors, overlap, data),
        "offsets_outside": _with_offsets(tensors, outside),
        "offsets_wrap": _with_offsets(tensors, wrapped),
        "offsets_backwards": _with_offsets(tensors, backwards),
        "offsets_are_text": safetensors.raw(mistyped, data),
        "offsets_do_not_fit_the_shape": _with_offsets(tensors, too_long, data + bytes(4)),
        "hole": _with_offsets(tensors, hole, holed),
        "wrong_name": safetensors.pack(renamed),
        "unknown_tensor_more": safetensors.pack({**tensors, "no.such.tensor": f32([2], [1, 2])}),
        "wrong_shape": safetensors.pack(turned),
        "wrong_rank": safetensors.pack(flat),
        "wrong_size": safetensors.pack(smaller),
        "shape_overflows": safetensors.raw(huge, data),
        "shape_negative": safetensors.raw(negative, data),
        "wrong_dtype_i32": safetensors.pack(integers),
        "wrong_dtype_f64": safetensors.pack(doubles),
        "unknown_dtype": safetensors.pack(strange),
        "random_bytes": random.Random(1).randbytes(5000),
        "pickle": pickle.dumps({name: list(tensor.data) for name, tensor in tensors.items()}),
        "gzip": gzip.compress(good),
    }
    infinite = {
        "nan": _with_value(tensors, first, float("nan")),
        "infinity": _with_value(tensors, last, float("inf")),
        "minus_infinity": _with_value(tensors, first, float("-inf")),
    }
    return {**{kind: (content, errno.EINVAL) for kind, content in invalid.items()},
            **{kind: (content, errno.EDOM) for kind, content in infinite.items()}}
