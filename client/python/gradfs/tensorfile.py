"""A safetensors file, mapped."""
import mmap
import os

from .errors import FormatError
from .safetensors import DTYPES, read_layout


class TensorFile:
    """Any safetensors file (a model, a snapshot, an optimizer's state) mapped whole.

    layout says what is in it; tensors is a dict of read-only memoryviews, made without a copy. A view of F32 has the
    format 'f' and the tensor's shape; one of a dtype that memoryview has no format for (F16, BF16, F8) is bytes.

    private=False maps read-only. private=True maps copy-on-write, for libraries that have no read-only arrays: the
    memory is the file's until a page is written to; from then on that page is this process's own, and no longer
    follows the file, until forget_writes().

    The map is freed when the last view of it is. It survives fork."""

    def __init__(self, path, private=False):
        self.path = os.fspath(path)
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.layout = read_layout(fd)
            self.map = mmap.mmap(fd, self.layout.file_bytes, access=mmap.ACCESS_COPY if private else mmap.ACCESS_READ)
        except FormatError as error:
            raise FormatError(f"{self.path}: {error}") from None
        finally:
            os.close(fd)  # the map has a descriptor of its own
        self.tensors = {tensor.name: self._view(tensor) for tensor in self.layout.tensors.values()}

    def _view(self, tensor):
        start = self.layout.data_start
        data = memoryview(self.map).toreadonly()[start + tensor.begin:start + tensor.end]
        form = DTYPES[tensor.dtype][1]
        if form is None:
            return data
        return data.cast(form, tensor.shape) if tensor.count else data.cast(form)

    def forget_writes(self):
        """Of a private map: every page is the file's again."""
        self.map.madvise(mmap.MADV_DONTNEED)
