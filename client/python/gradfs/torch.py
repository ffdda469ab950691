"""Models as torch tensors, and an optimizer whose step is taken by the filesystem."""
import torch

from .errors import Mismatch, TooStale
from .model import Model
from .tensorfile import TensorFile

DTYPES = {"BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "F16": torch.float16,
          "BF16": torch.bfloat16, "I32": torch.int32, "F32": torch.float32, "F64": torch.float64, "I64": torch.int64}
NAMED_MAX = 5  # names in an error


def tensors(source):
    """name -> tensor over the memory of a gradfs.Model or gradfs.TensorFile: live, without a copy.

    torch has no read-only tensors: one over a read-only map is a crash (SIGSEGV) at the first in-place operation. So
    these lie on a private copy-on-write map. What is written to them stays in this process, and the pages that were
    written to no longer follow the model."""
    return _over(TensorFile(getattr(source, "file", source).path, private=True))


def _over(file):
    out = {}
    for tensor in file.layout.tensors.values():
        if tensor.count == 0:
            out[tensor.name] = torch.empty(tensor.shape, dtype=DTYPES[tensor.dtype])
            continue
        start = file.layout.data_start + tensor.begin
        flat = torch.frombuffer(file.map, dtype=DTYPES[tensor.dtype], count=tensor.count, offset=start)
        out[tensor.name] = flat.reshape(tensor.shape)
    return out


class RemoteOptimizer(torch.optim.Optimizer):
    """Takes the place of torch.optim.Adam and its like in a training loop:

        optimizer = gradfs.torch.RemoteOptimizer(model, "/mnt/gradfs/models/toy", run="r1", worker="w0")

    model is a torch.nn.Module. step() pushes its gradients, and when it returns the model's parameters are those of
    the updated gradfs model, with what other workers have pushed. Optimizer, rate and schedule are those of
    descent.toml. With one worker the result is what torch.optim gives: to the bit, where no number is subnormal or
    descent.toml has profile = "torch1-fma".

    Parameters are matched by name. When this is made, the module gets the parameters of gradfs; each of its trainable
    parameters has to be there with its shape, in float32. Parameters whose grad is None are left out of the push.

    parameters="copy" (the default): the module's own memory, refreshed at each step. A gradient is computed with one
    set of values from forward to backward, autograd notices a step between the two, and in-place operations on
    parameters do what they do with any optimizer; the next step undoes them.
    parameters="map": the parameters are the mapped model, so that all workers of a host share one copy. They move
    while other workers push, between forward and backward too; what is written to them in place is a private copy that
    the next step drops; the module has to be on the CPU, and stay there. Without passthrough a mount that is restarted
    takes the map with it.

    A gradient that is refused as too stale is dropped: the parameters are refreshed, dropped counts it, and training
    goes on. Every other refusal is raised (gradfs.NotFinite, ...), and leaves the parameters as they were.

    worker names this process; each has a name of its own. Started again under its name it goes on after its last step.
    After a fork, step() raises WrongProcess: a child makes an optimizer of its own. timeout_s and through are those
    of Model.push."""

    def __init__(self, model, directory, *, run=None, worker=None, parameters="copy", through="slot", timeout_s=60.0):
        if parameters not in ("copy", "map"):
            raise ValueError(f"parameters is {parameters!r}; there are 'copy' and 'map'")
        self.remote = Model(directory, run=run, worker=worker)
        self._through, self._timeout_s, self._mapped = through, timeout_s, parameters == "map"
        self._named = _match(model, self.remote, self._mapped)
        self.dropped = 0
        self.next_step = self.remote.next_step()
        self.remote.wait_applied(timeout_s)  # the step before it, if this worker was killed while it pushed
        super().__init__(list(self._named.values()), {})
        self._attach()

    def _attach(self):
        self._remote_file = self.remote.file
        self._file = TensorFile(self._remote_file.path, private=True)
        self._sources = {name: tensor for name, tensor in _over(self._file).items() if name in self._named}
        self.base_version = self.remote.version
        for name, parameter in self._named.items():
            if self._mapped:
                parameter.data = self._sources[name]
        self._copy()

    def _copy(self):
        if not self._mapped:
            with torch.no_grad():
                for name, parameter in self._named.items():
                    parameter.copy_(self._sources[name])

    def refresh(self):
        """The parameters become what the model is now. step() does it, too."""
        if self._remote_file is not self.remote.file:  # the mount was restarted
            self._attach()
            return
        self.base_version = self.remote.version  # before the values: they contain at least this
        if self._mapped:
            self._file.forget_writes()
        self._copy()

    @torch.no_grad()
    def step(self, closure=None, *, loss=None):
        """Pushes the gradients and refreshes the parameters. loss (or what closure returns) is shown in status.json."""
        result = None
        if closure is not None:
            with torch.enable_grad():
                result = closure()
            loss = result if loss is None else loss
        gradients = {name: parameter.grad for name, parameter in self._named.items() if parameter.grad is not None}
        if gradients:
            try:
                self.remote.push(gradients, step=self.next_step, base_version=self.base_version,
                                 loss=None if loss is None else float(loss), through=self._through,
                                 timeout_s=self._timeout_s)
                self.next_step += 1
            except TooStale:
                self.dropped += 1
        self.refresh()
        return result

    def close(self):
        """Frees the slot. The parameters stay what they are."""
        self.remote.close()


def _match(module, remote, mapped):
    """name -> parameter of the module, for each that the model has."""
    layout, named = remote.layout.tensors, dict(module.named_parameters())
    missing = [name for name, parameter in named.items() if parameter.requires_grad and name not in layout]
    unknown = [name for name in layout if name not in module.state_dict()]
    for names, text in ((missing, "lacks what the module has"), (unknown, "has what the module lacks")):
        if names:
            more = ", ..." if len(names) > NAMED_MAX else ""
            raise Mismatch(f"{remote.directory} {text}: {', '.join(names[:NAMED_MAX])}{more}")
    matched = {name: parameter for name, parameter in named.items() if name in layout}
    for name, parameter in matched.items():
        if tuple(parameter.shape) != layout[name].shape:
            raise Mismatch(f"{remote.directory}: tensor {name} has shape {list(layout[name].shape)}; "
                              f"the module's is {list(parameter.shape)}")
        if parameter.dtype != torch.float32:
            raise Mismatch(f"{remote.directory}: the module's {name} is {parameter.dtype}; it has to be torch.float32")
        if mapped and parameter.device.type != "cpu":
            raise Mismatch(f"{remote.directory}: the module's {name} is on {parameter.device}; a map needs the CPU")
    return matched
