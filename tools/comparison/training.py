"""One run: a fresh model, one gradfs-train, its report."""
import json
import os
import signal
import subprocess
import time

from comparison import interrupts
from comparison.cluster import ClusterError, is_bound
from comparison.plan import MODELS, NEVER, OPTIMIZER

STOP_GRACE_S = 8  # from SIGINT to SIGKILL


class RunFailed(Exception):
    """One line."""


class OutOfTime(Exception):
    """The run did not end within its limit."""


def command(run, program, model_directory, data, report):
    """The command line of a run. data: folder of MNIST."""
    words = [program, "--model", model_directory, "--dataset", MODELS[run.model].dataset,
             "--architecture", run.architecture, "--workers", run.workers, "--batch-size", run.batch,
             "--seed", run.seed, "--evaluate-every", f"{run.evaluate_every:g}", "--report", report]
    if MODELS[run.model].dataset == "mnist":
        words += ["--data", data]
    else:
        words += ["--rows", run.rows, "--test-rows", run.test_rows]
    words += ["--epochs", run.epochs] if run.epochs is not None else ["--max-seconds", f"{run.seconds:g}"]
    if run.evaluate_every != NEVER:
        words += ["--evaluate-later"]
    if not is_bound(run):
        words += ["--optimizer", OPTIMIZER, "--lr", f"{run.rate:g}"]
    if run.partitions is not None:
        words += ["--partitions", run.partitions]
    if run.straggler_ms:
        words += ["--straggler-ms", f"{run.straggler_ms:g}"]
    return [str(word) for word in words]


def stop(process):
    """Ends a trainer with all its processes."""
    with interrupts.held():
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()


def reason(log, code):
    """What a failed gradfs-train said last, in one line."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    own = [line for line in lines if line.startswith("gradfs-train:")]
    return (own or lines or [f"gradfs-train: exit {code}"])[-1]


class Trainer:
    """Runs gradfs-train in the cluster. A cluster in which something went wrong is made anew."""

    def __init__(self, cluster, program, data, store):
        self._cluster, self._program, self._data, self._store = cluster, program, data, store

    def __call__(self, run, limit_s):
        """(wall seconds, report). Raises RunFailed or OutOfTime."""
        began = time.monotonic()
        try:
            directory = self._cluster.create_model(run)
            report = self._train(run, directory, limit_s - (time.monotonic() - began))
        except (ClusterError, RunFailed, OutOfTime) as error:
            self._cluster.up()
            raise RunFailed(str(error)) if isinstance(error, ClusterError) else error
        try:
            self._cluster.remove_model(directory)
        except ClusterError:
            self._cluster.up()
        return time.monotonic() - began, report

    def _train(self, run, directory, limit_s):
        path = self._store.folder / "report.json"
        path.unlink(missing_ok=True)
        log = self._store.logs / f"{run.key}.log"
        words = command(run, self._program, directory, self._data, path)
        process = None
        try:
            with open(log, "w") as said, interrupts.held():
                said.write(" ".join(words) + "\n")
                said.flush()
                process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                                           env=self._cluster.environment, start_new_session=True)
            code = process.wait(max(0.1, limit_s))
        except OSError as error:
            raise RunFailed(f"{self._program}: {error.strerror}: build first, or set GRADFS_BIN") from None
        except subprocess.TimeoutExpired:
            stop(process)
            raise OutOfTime from None
        except KeyboardInterrupt:
            if process:
                stop(process)
            raise
        if code != 0:
            raise RunFailed(reason(log, code))
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise RunFailed("gradfs-train: it wrote no report") from None
        path.unlink()
        if report.get("workers_lost"):
            raise RunFailed(f"gradfs-train: lost workers {report['workers_lost']}")
        return report
