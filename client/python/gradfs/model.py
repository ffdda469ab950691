"""A model directory on a mount."""
import collections
import contextlib
import json
import math
import os
import secrets
import socket
import time
import weakref

from .buffers import as_f32
from .errors import Error, WrongProcess
from .pushing import WAYS, Pusher
from .safetensors import render_header, render_tensors
from .tensorfile import TensorFile

PAUSE_S = 0.005

# repeated: this run, worker and step had counted before this call, or before an attempt of it whose answer was lost.
Pushed = collections.namedtuple("Pushed", "run worker step repeated")


class Model:
    """The directory of a model on a mount, such as /mnt/gradfs/models/mnist.

    tensors is a dict of read-only memoryviews over the live parameters: no copy, and what they show moves when a
    gradient is applied. While that happens, a view may show some values of one version and some of the next.

    Each push names a run, a worker and a step, and counts once. run and worker are given here or to push(); without a
    name, run is random and worker is HOST-PID. A worker's name belongs to one process at a time. After a fork the
    parameters can be read; to push, a child makes a Model of its own. Not for several threads at once."""

    def __init__(self, directory, run=None, worker=None):
        self.directory = os.fspath(directory)
        self.run = run if run is not None else secrets.token_hex(8)
        self.worker = worker if worker is not None else f"{socket.gethostname()}-{os.getpid()}"
        self._process = os.getpid()
        self._pushers = {}
        self._next_steps = {}
        self._members = {}
        self._finalizer = weakref.finalize(self, _close, self._pushers)
        self.reopen()

    def reopen(self):
        """Maps the parameters anew, as is needed when the mount was restarted; views made before stay as they are."""
        self.file = TensorFile(self.path("model.safetensors"))

    def path(self, *names):
        return os.path.join(self.directory, *names)

    @property
    def layout(self):
        return self.file.layout

    @property
    def tensors(self):
        return self.file.tensors

    @property
    def version(self):
        """The map contains at least this version of the model. A push adds one."""
        return int(self._attribute("version"))

    @property
    def sequence(self):
        return int(self._attribute("sequence"))

    @property
    def optimizer(self):
        """The name of its update rule."""
        return self._attribute("optimizer")

    def _attribute(self, name):
        path = self.path("model.safetensors")
        try:
            return os.getxattr(path, f"user.gradfs.{name}").decode()
        except OSError as error:
            raise Error(f"{path} is not a live model on a mount: {os.strerror(error.errno)}") from error

    def status(self):
        """status.json: version, sequence, loss, workers, last_refusal, state, ..."""
        with open(self.path("status.json"), "rb") as file:
            return json.load(file)

    def last_step(self, worker=None):
        """The last step of a worker that counted; None if there is none."""
        row = self.status()["workers"].get(self.worker if worker is None else worker)
        return None if row is None else int(row["last_step"])

    def next_step(self, worker=None):
        """Where a worker goes on that was stopped, or killed."""
        last = self.last_step(worker)
        return 0 if last is None else last + 1

    def wait_applied(self, timeout_s=60.0):
        """Returns when the model contains what has landed until now: of use to a worker that was killed in a push."""
        deadline = time.monotonic() + timeout_s
        status = self.status()
        landed = status["committed"]
        while status["sequence"] < landed:
            if status["state"] != "running" or time.monotonic() > deadline:
                raise Error(f"{self.directory}: number {landed} is not applied; the model is {status['state']}")
            time.sleep(PAUSE_S)
            status = self.status()

    def push(self, tensors, *, run=None, worker=None, step=None, base_version=None, loss=None, weight=None,
             loss_scale=None, through="slot", timeout_s=60.0):
        """Pushes a gradient, and returns when the model contains it: a Pushed.

        tensors: name -> F32 values, as NumPy arrays, torch tensors, array('f'), memoryviews, or bytes. A subset of the
        model's tensors will do; the others are left untouched, without decay and step.
        step: of this worker, one that has not counted yet; by default the one after its last.
        base_version: what the gradient was computed at; loss: shown in status.json; weight: samples; loss_scale: the
        gradient is divided by it.
        through: "slot" (fsync of a file that stays: the fast way), "file" (close of a new file) or "rename".
        timeout_s: how long to try again while a server is away. A single attempt may take as long as the mount's
        timeout, and a synchronous policy until its round is done.

        Raises what gradfs.errors says: a Refused, PushFailed, OutcomeUnknown, WrongProcess or SlotInUse."""
        if os.getpid() != self._process:
            raise WrongProcess(f"this belongs to process {self._process}, and {os.getpid()} is its child: "
                               "let each process make its own, with a worker name of its own")
        run = self.run if run is None else str(run)
        worker = self.worker if worker is None else str(worker)
        pusher = self._pusher(run, worker, through)
        if step is None:
            step = self._next_steps[run, worker] if (run, worker) in self._next_steps else self.next_step(worker)
        metadata = {"run": run, "worker": worker, "step": str(int(step))}
        for key, value in (("base_version", base_version), ("weight", weight), ("loss_scale", loss_scale)):
            if value is not None:
                metadata[key] = str(value)
        if loss is not None and math.isfinite(loss):
            metadata["loss"] = f"{float(loss):.8g}"
        buffers = self._render(tensors, metadata, pusher, step)
        repeated, retried = pusher.push(int(step), buffers, timeout_s)
        self._next_steps[run, worker] = int(step) + 1
        if retried:  # the mount may have been restarted
            with contextlib.suppress(OSError):
                self.reopen()
        return Pushed(run, worker, int(step), repeated)

    def _pusher(self, run, worker, through):
        if through not in WAYS:
            raise ValueError(f"through is {through!r}; there are {', '.join(map(repr, WAYS))}")
        key = run, worker, through
        if key not in self._pushers:
            self._pushers[key] = Pusher(self.directory, run, worker, through)
        return self._pushers[key]

    def _render(self, tensors, metadata, pusher, step):
        """The file as a list of buffers. What the filesystem would refuse for its shape is refused here already."""
        try:
            if not tensors:
                raise ValueError("a gradient without tensors")
            views = []
            for name, value in tensors.items():
                known = self.layout.tensors.get(name)
                if known is None:
                    raise ValueError(f"the model has no tensor {name}")
                views.append(as_f32(value, name, known.shape)[0])
        except (TypeError, ValueError) as error:
            raise pusher.invalid(step, str(error)) from None
        names = tuple(tensors)
        if names not in self._members:
            self._members[names] = render_tensors({name: self.layout.tensors[name].shape for name in names})
        return [render_header(self._members[names], metadata), *views]

    def close(self):
        """Frees the slots. Views of the parameters stay valid."""
        self._finalizer()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _close(pushers):
    for pusher in pushers.values():
        pusher.close()
    pushers.clear()
