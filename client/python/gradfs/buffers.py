"""F32 arrays of any kind as bytes, without a copy where their memory is in order; and writing many of them at once."""
import os

IOV_MAX = os.sysconf("SC_IOV_MAX")
_F32 = {"f", "@f", "=f", "<f"}
_BYTES = {"B", "b", "c", "<B", "@B"}


def as_f32(value, name, shape=None):
    """(memoryview of bytes, shape) of one tensor's values, in C order.

    value: what has the buffer protocol with F32 elements (array('f'), memoryview, NumPy array), bytes that hold such,
    or a torch tensor. shape: what is wanted; a flat array of the right length will do. ValueError or TypeError, of one
    line, if it does not fit."""
    if hasattr(value, "detach"):
        value = _from_torch(value, name)
    try:
        view = memoryview(value)
    except TypeError:
        raise TypeError(f"tensor {name} is a {type(value).__name__}: pass an array of F32") from None
    if view.format not in _F32 and view.format not in _BYTES:
        raise TypeError(f"tensor {name} has elements of the format '{view.format}': convert them to F32")
    if shape is None:
        if view.format in _BYTES:
            raise TypeError(f"tensor {name} is bytes without a shape: pass an array of F32")
        shape = view.shape
    else:
        _check_shape(view, name, tuple(shape))
    if view.nbytes == 0:
        return memoryview(b""), tuple(shape)
    return (view.cast("B") if view.c_contiguous else memoryview(view.tobytes())), tuple(shape)


def _check_shape(view, name, shape):
    wanted = 4
    for side in shape:
        wanted *= side
    if view.format in _BYTES:
        if view.nbytes != wanted:
            raise ValueError(f"tensor {name} has {view.nbytes} bytes; the model's {list(shape)} has {wanted}")
    elif view.shape != shape and (view.ndim != 1 or view.nbytes != wanted):
        raise ValueError(f"tensor {name} has shape {list(view.shape)}; the model's is {list(shape)}")


def _from_torch(tensor, name):
    """A NumPy array over a torch tensor's memory; of a copy of it, if it is on another device."""
    if str(tensor.layout) != "torch.strided":
        raise TypeError(f"tensor {name} is {tensor.layout}: pass a dense one")
    if str(tensor.dtype) != "torch.float32":
        raise TypeError(f"tensor {name} is {tensor.dtype}: a model's tensors are float32")
    return tensor.detach().cpu().contiguous().numpy()


def write_all(fd, buffers, offset=0):
    """Writes the buffers one after the other from offset on, in as few calls as can be."""
    left = [memoryview(buffer) for buffer in buffers if len(buffer)]
    first = 0
    while first < len(left):
        written = os.pwritev(fd, left[first:first + IOV_MAX], offset)
        offset += written
        while first < len(left) and written >= len(left[first]):
            written -= len(left[first])
            first += 1
        if written:
            left[first] = left[first][written:]
