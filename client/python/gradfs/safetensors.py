"""The safetensors format: a strict parser of the header, a writer of headers, and a writer of models.

    file   = length header data
    length = u64, little-endian: bytes of header, at most 100,000,000
    header = a JSON object that begins with '{', then any number of spaces
    data   = the tensors' bytes, without holes or overlap, up to the end of the file

Whatever breaks a rule is a FormatError of one line.
"""
import collections
import contextlib
import json
import os
import struct

from .buffers import as_f32, write_all
from .errors import FormatError

HEADER_MAX = 100_000_000
ALIGNMENT = 4096  # of a model's data in its file; of a gradient's too, so that its slot can be mapped by pages
DIMENSIONS_MAX = 64

# name -> (bytes of an element, its format in memoryview and struct; None: bytes are all there is)
DTYPES = {"BOOL": (1, "?"), "U8": (1, "B"), "I8": (1, "b"), "F8_E5M2": (1, None), "F8_E4M3": (1, None),
          "F8_E8M0": (1, None), "I16": (2, "h"), "U16": (2, "H"), "F16": (2, None), "BF16": (2, None),
          "I32": (4, "i"), "U32": (4, "I"), "F32": (4, "f"), "F64": (8, "d"), "I64": (8, "q"), "U64": (8, "Q")}

# A tensor in a file. shape: a tuple; begin, end: byte offsets in the data, not in the file; count: elements.
TensorInfo = collections.namedtuple("TensorInfo", "name dtype shape begin end count")


class Layout:
    """tensors (name -> TensorInfo, in the order of their data), metadata (strings), data_start, file_bytes."""

    def __init__(self, tensors, metadata, data_start, file_bytes):
        self.tensors, self.metadata = tensors, metadata
        self.data_start, self.file_bytes = data_start, file_bytes

    @property
    def parameters(self):
        return sum(tensor.count for tensor in self.tensors.values())


def element_count(shape):
    count = 1
    for side in shape:
        count *= side
    return count


def parse_header(text, file_bytes):
    """text: the header without its length, as bytes; file_bytes: the size of the whole file."""
    text = bytes(text)
    if len(text) > HEADER_MAX or 8 + len(text) > file_bytes:
        raise FormatError(f"the header of {len(text)} bytes does not fit into a file of {file_bytes}")
    if not text.startswith(b"{") or not text.rstrip(b" ").endswith(b"}"):
        raise FormatError("the header is not a JSON object followed by spaces")
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_constant)
    except FormatError:
        raise
    except (ValueError, RecursionError) as error:
        raise FormatError(f"the header is not JSON: {error or type(error).__name__}") from None
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FormatError("__metadata__ is not an object of strings")
    tensors = sorted((_tensor(name, entry) for name, entry in header.items()), key=lambda t: (t.begin, t.end))
    data_bytes = file_bytes - 8 - len(text)
    at = 0
    for tensor in tensors:
        if tensor.begin != at:
            raise FormatError(f"{'an overlap' if tensor.begin < at else 'a hole'} before tensor '{tensor.name}'")
        at = tensor.end
    if at != data_bytes:
        raise FormatError(f"the file has {data_bytes} bytes of data, its tensors {at}")
    return Layout({tensor.name: tensor for tensor in tensors}, metadata, 8 + len(text), file_bytes)


def _object(pairs):
    members = dict(pairs)
    if len(members) != len(pairs):
        raise FormatError("a key of the header occurs twice")
    return members


def _no_constant(text):
    raise FormatError(f"the header has the number {text}")


def _whole(values):
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 1 << 64 for value in values)


def _tensor(name, entry):
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise FormatError(f"tensor '{name}' needs dtype, shape and data_offsets, and nothing else")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise FormatError(f"tensor '{name}' has the unknown dtype {dtype!r}")
    if not _whole(shape) or len(shape) > DIMENSIONS_MAX:
        raise FormatError(f"tensor '{name}' has a shape that is not a list of whole numbers")
    if not _whole(offsets) or len(offsets) != 2:
        raise FormatError(f"tensor '{name}' has data_offsets that are not two whole numbers")
    begin, end = offsets
    count = element_count(shape)
    if end - begin != count * DTYPES[dtype][0]:
        raise FormatError(f"tensor '{name}' has {end - begin} bytes, but {dtype} {shape} needs "
                          f"{count * DTYPES[dtype][0]}")
    return TensorInfo(name, dtype, tuple(shape), begin, end, count)


def read_layout(fd):
    """The header of an open file. Reads by pread; the position of fd does not matter, and stays."""
    file_bytes = os.fstat(fd).st_size
    prefix = os.pread(fd, 8, 0)
    if len(prefix) < 8:
        raise FormatError(f"a file of {file_bytes} bytes is no safetensors file")
    (length,) = struct.unpack("<Q", prefix)
    if length > min(HEADER_MAX, file_bytes - 8):
        raise FormatError(f"a header of {length} bytes in a file of {file_bytes}: not a safetensors file")
    text = b""
    while len(text) < length:
        part = os.pread(fd, length - len(text), 8 + len(text))
        if not part:
            raise FormatError("the file became shorter while it was read")
        text += part
    return parse_header(text, file_bytes)


def render_tensors(shapes):
    """The members of a header that describe F32 tensors, one after the other in the order of shapes (name -> shape)."""
    members, at = [], 0
    for name, shape in shapes.items():
        if name == "__metadata__":
            raise FormatError("no tensor can be named __metadata__")
        end = at + 4 * element_count(shape)
        entry = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, end]}
        members.append(f"{json.dumps(name)}:{json.dumps(entry, separators=(',', ':'))}")
        at = end
    return ",".join(members)


def render_header(members, metadata=None):
    """The first bytes of a file: length, JSON, and spaces, so that the data starts at a multiple of ALIGNMENT.
    members: what render_tensors gave; metadata: name -> string."""
    own = [f'"__metadata__":{json.dumps(metadata, separators=(",", ":"))}'] if metadata else []
    text = ("{" + ",".join(own + [members] * bool(members)) + "}").encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    if len(text) > HEADER_MAX:
        raise FormatError("the header would be longer than 100,000,000 bytes")
    return struct.pack("<Q", len(text)) + text


def save_model(path, tensors, metadata=None):
    """Writes F32 tensors (name -> array('f'), memoryview, NumPy array, torch tensor) as a safetensors file that
    `fsctl model create --from` takes. metadata: name -> text. Over a live model.safetensors this is an assign."""
    views, shapes = {}, {}
    for name, value in tensors.items():
        views[name], shapes[name] = as_f32(value, name)
    metadata = {key: str(value) for key, value in (metadata or {}).items()}
    header = render_header(render_tensors(shapes), metadata)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        write_all(fd, [header, *views.values()])
    except BaseException:
        with contextlib.suppress(OSError):  # a half file is refused on a mount; the first error says why
            os.close(fd)
        raise
    os.close(fd)  # on a mount, this is where a refusal comes
