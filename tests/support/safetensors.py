"""The safetensors format in the standard library: 8 bytes of header length, a JSON header, then the data."""
import array
import collections
import json
import struct

Tensor = collections.namedtuple("Tensor", "dtype shape data")  # data: array('f') for F32, else bytes
File = collections.namedtuple("File", "metadata tensors data_start")


def f32(shape, values):
    return Tensor("F32", list(shape), values if isinstance(values, array.array) else array.array("f", values))


def raw(header, data, pad_to=8):
    """A file from a header (a dict, or bytes taken as they are) and its data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % pad_to)
    return struct.pack("<Q", len(text)) + text + bytes(data)


def header_of(tensors, metadata=None):
    """The header as a dict, offsets in the order of the tensors."""
    header, at = {}, 0
    if metadata:
        header["__metadata__"] = {key: str(value) for key, value in metadata.items()}
    for name, tensor in tensors.items():
        size = len(bytes_of(tensor))
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [at, at + size]}
        at += size
    return header


def bytes_of(tensor):
    return tensor.data.tobytes() if isinstance(tensor.data, array.array) else bytes(tensor.data)


def pack(tensors, metadata=None, pad_to=8):
    return raw(header_of(tensors, metadata), b"".join(map(bytes_of, tensors.values())), pad_to)


def unpack(content):
    (length,) = struct.unpack_from("<Q", content)
    start = 8 + length
    if start > len(content):
        raise ValueError(f"a header of {length} bytes in a file of {len(content)}")
    header = json.loads(content[8:start])
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        data = content[start + begin:start + end]
        if len(data) != end - begin:
            raise ValueError(f"{name} leaves the file")
        if entry["dtype"] == "F32":
            data = array.array("f", data)
        tensors[name] = Tensor(entry["dtype"], entry["shape"], data)
    return File(metadata, tensors, start)


def read(path):
    with open(path, "rb") as f:
        return unpack(f.read())


def write(path, tensors, metadata=None):
    with open(path, "wb") as f:
        f.write(pack(tensors, metadata))
