"""The cluster of a comparison: master, worker and mount in DIR/cluster and DIR/mnt, by fsctl."""
import os
import shutil
import socket
import subprocess
import tempfile

from comparison import interrupts
from comparison.plan import MODELS, OPTIMIZER

MEMORY = "4GiB"
FSCTL_LIMIT_S = 90


class ClusterError(Exception):
    """One line."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def last_line(text):
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


class Cluster:
    """binaries: the folder of fsctl. up() and down() may be called in any state."""

    def __init__(self, binaries, folder):
        self._fsctl = binaries / "fsctl"
        self._folder = folder / "cluster"
        self._mount = folder / "mnt"
        self.environment = dict(os.environ)
        self._models = 0

    def _run(self, *arguments):
        """Output goes through a file: daemons that keep it open block nobody. In a session of its own, so that Ctrl-C
        reaches nobody but the caller."""
        with tempfile.TemporaryFile() as said, interrupts.held():
            try:
                child = subprocess.run([self._fsctl, *arguments], stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                                       env=self.environment, start_new_session=True, timeout=FSCTL_LIMIT_S)
            except OSError as error:
                raise ClusterError(f"{self._fsctl}: {error.strerror}: build first, or set GRADFS_BIN") from None
            except subprocess.TimeoutExpired:
                raise ClusterError(f"fsctl {arguments[0]} {arguments[1]} takes longer than {FSCTL_LIMIT_S} s") from None
            if child.returncode != 0:
                said.seek(0)
                error = last_line(said.read().decode(errors="replace"))
                raise ClusterError(error or f"fsctl {arguments[0]} {arguments[1]}: exit {child.returncode}")

    def up(self):
        """A new one, without what an earlier one left."""
        self.down()
        self.environment["GRADFS_MASTER"] = f"127.0.0.1:{free_port()}"
        self._run("cluster", "up", "--dir", self._folder, "--mount", self._mount, "--memory", MEMORY)

    def down(self):
        with interrupts.held():
            self._run("cluster", "down", "--dir", self._folder, "--purge", "--yes")
            shutil.rmtree(self._folder, ignore_errors=True)

    def create_model(self, run):
        """A fresh model for a run; its directory on the mount."""
        self._models += 1
        name = f"m{self._models}"
        more = ["--optimizer", OPTIMIZER, "--lr", f"{run.rate:g}"] if is_bound(run) else ["--plain"]
        self._run("model", "create", f"/models/{name}", "--layers", MODELS[run.model].layers, "--seed", str(run.seed),
                  *more)
        return self._mount / "models" / name

    @staticmethod
    def remove_model(directory):
        """And what is bound to it."""
        try:
            shutil.rmtree(directory)
        except OSError as error:
            raise ClusterError(f"{directory}: {error.strerror}") from None


def is_bound(run):
    """Whether gradfs itself takes the steps; else the model is a plain file to it."""
    return run.architecture == "coprocessor"
