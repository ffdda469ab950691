"""How long a run will take: from guesses at first, from what was measured as soon as there is anything."""
import collections
import statistics

from comparison.plan import MNIST_ROWS, MODELS, NEVER


class Estimator:
    def __init__(self):
        self._speeds = {}                                # samples a second of the last run of its kind
        self._overheads = collections.defaultdict(list)  # seconds of a run besides training

    @staticmethod
    def _kind(run):
        return run.model, run.architecture, run.workers, run.batch

    @staticmethod
    def _overhead_kind(run):
        return run.section, run.model

    def learn(self, run, wall_s, report):
        if report.get("samples_per_second"):
            self._speeds[self._kind(run)] = report["samples_per_second"]
        if report.get("train_seconds") is not None:
            self._overheads[self._overhead_kind(run)].append(max(0.0, wall_s - report["train_seconds"]))

    def _train_s(self, run):
        if run.seconds is not None:
            return run.seconds
        guess = MODELS[run.model].samples_per_second
        return run.epochs * (run.rows or MNIST_ROWS) / self._speeds.get(self._kind(run), guess)

    def _overhead_s(self, run, train_s):
        known = self._overheads.get(self._overhead_kind(run))
        if known:
            return statistics.mean(known)
        model = MODELS[run.model]
        if run.evaluate_every == NEVER:
            return model.overhead_s
        epochs = run.epochs or train_s * model.samples_per_second / (run.rows or MNIST_ROWS)
        return model.overhead_s + epochs / run.evaluate_every * model.evaluation_s

    def expect_s(self, run):
        """Seconds, with the model's creation and its evaluations."""
        train_s = self._train_s(run)
        return train_s + self._overhead_s(run, train_s)


def planned_s(runs):
    """Seconds of all these runs by the guesses alone."""
    estimator = Estimator()
    return sum(estimator.expect_s(run) for run in runs)
