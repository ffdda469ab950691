"""Runs what is missing, in order, until all is done or the time is up."""
import time

from comparison import summary
from comparison.plan import MODELS, with_rate
from comparison.training import OutOfTime, RunFailed

ATTEMPTS = 2
SLACK = 6        # a run that takes so many times what is expected hangs,
SLACK_S = 60     # unless it takes less than this


def clock(seconds):
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def describe(run):
    parts = [run.section, MODELS[run.model].label, f"batch {run.batch}", f"workers {run.workers}"]
    if run.partitions is not None:
        parts.append(f"partitions {run.partitions}")
    if run.straggler_ms:
        parts.append(f"straggler {run.straggler_ms:g} ms")
    return ", ".join(parts + [f"lr {run.rate:g}", f"seed {run.seed}", run.architecture])


def outcome(report):
    parts = []
    for name, text in (("updates_per_second", "{:.1f} updates/s"), ("test_accuracy", "accuracy {:.3f}")):
        if report.get(name) is not None:
            parts.append(text.format(report[name]))
    return ", ".join(parts) or "done"


class Schedule:
    """runs: all of them, also those that are done. train(run, limit_s) does one. deadline: of time.monotonic(), or of
    now(); say prints a line."""

    def __init__(self, runs, store, estimator, train, deadline, say=print, now=time.monotonic):
        self._runs, self._store, self._estimator, self._train = runs, store, estimator, train
        self._deadline, self._say, self._now = deadline, say, now
        self._began = now()

    def remaining(self, runs=None):
        """Those of all runs, or of these, that are not done, with their learning rates as far as they are known."""
        rates = summary.chosen_rates(self._runs, self._store)
        resolved = [with_rate(run, rates) for run in (self._runs if runs is None else runs)]
        return [run for run in resolved if not self._store.find(run)]

    def expect_s(self, runs):
        return sum(self._estimator.expect_s(run) for run in runs)

    def __call__(self):
        """How many runs were left out because the time was up."""
        left_out = 0
        count = len(self._runs)
        for index, planned in enumerate(self._runs):
            remaining = self.remaining([planned])
            if not remaining:
                continue
            run = remaining[0]
            if self._now() + self._estimator.expect_s(run) > self._deadline or not self._attempt(run, index, count):
                left_out += 1
        return left_out

    def _attempt(self, run, index, count):
        """Whether there was time for it; the store has what came of it."""
        for attempt in range(ATTEMPTS):
            left_s = self._deadline - self._now()
            hangs_s = max(SLACK_S, SLACK * self._estimator.expect_s(run))
            try:
                wall_s, report = self._train(run, min(left_s, hangs_s))
            except OutOfTime:
                if left_s <= hangs_s:
                    return False
                error = f"gradfs-train: no end after {hangs_s:.0f} s"
            except RunFailed as failure:
                error = str(failure)
            else:
                self._store.save(run, wall_s, report)
                self._estimator.learn(run, wall_s, report)
                self._tell(run, index, count, outcome(report))
                return True
            again = attempt + 1 < ATTEMPTS and self._deadline > self._now()
            self._tell(run, index, count, f"failed{', once more' if again else ''}: {error}")
            if not again:
                break
        self._store.save_error(run, error)
        return True

    def _tell(self, run, index, count, what):
        left_s = min(self.expect_s(self.remaining(self._runs[index + 1:])), max(0, self._deadline - self._now()))
        self._say(f"[{index + 1:3}/{count}] {clock(self._now() - self._began):>5}  {describe(run)}: {what}"
                  f"  ({clock(left_s)} left)")
