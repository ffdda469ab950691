"""Trainers as processes, and what their model must be at the end. GRADFS_TEST_SEED repeats a run."""
import contextlib
import os
import random
import subprocess
import sys

import pusher
from case import ClusterCase
from model import Model, data_of

SEED = int(os.environ.get("GRADFS_TEST_SEED", "20240607"))


class Trainer:
    """A pusher process and the steps that it was told are done."""

    def __init__(self, cluster, model, way, worker):
        self.model, self.way, self.worker = model, way, worker
        self.acks = cluster.local(f"{model.name}.{worker}.acks")
        self.stop = cluster.local(f"{model.name}.stop")
        self.errors = self.acks + ".stderr"
        self.start()

    def start(self):
        """From the step after the last acknowledged; that one may have counted before."""
        command = [sys.executable, "-B", pusher.__file__, self.model.dir, self.way, str(self.worker),
                   str(len(self.done())), self.acks, self.stop, *(["--again"] if os.path.exists(self.acks) else [])]
        with open(self.errors, "ab") as errors:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors)

    def done(self):
        try:
            with open(self.acks) as f:
                return [int(line) for line in f.read().splitlines()]
        except FileNotFoundError:
            return []

    def said(self):
        with open(self.errors, errors="replace") as f:
            return f.read()


class TrainingCase(ClusterCase):
    """Trainers that push files and slots at once, on a model of their own."""
    limit_s = 100

    def setUp(self):
        super().setUp()
        print(f"{self._testMethodName}: seed {SEED}", file=sys.stderr, flush=True)
        self.random = random.Random(f"{SEED} {self._testMethodName}")
        self.model = Model(self.cluster, pusher.tensors([0.0] * pusher.PERIOD))
        self.first = self.model.version()
        self.trainers = [Trainer(self.cluster, self.model, way, worker)
                         for worker, way in enumerate(("file", "slot", "file", "slot"))]
        self.addCleanup(self.end_trainers)

    def end_trainers(self):
        for trainer in self.trainers:
            trainer.process.kill()
        with contextlib.suppress(RuntimeError):
            self.cluster.up()
        for trainer in self.trainers:
            trainer.process.wait(20)

    def busy(self, trainers=None):
        """Waits until every trainer has made progress since now."""
        trainers = trainers or self.trainers
        before = [len(trainer.done()) for trainer in trainers]

        def moved():
            for trainer in trainers:
                self.assertIsNone(trainer.process.poll(), f"trainer {trainer.worker} ended: {trainer.said()}")
            return all(len(trainer.done()) > count for trainer, count in zip(trainers, before))

        self.eventually(moved, "every trainer goes on", 30)

    def finish(self):
        with open(self.trainers[0].stop, "w"):
            pass
        for trainer in self.trainers:
            self.assertEqual(trainer.process.wait(40), 0, trainer.said())
            self.assertEqual(trainer.said(), "")

    def sum_of(self, steps_of_workers):
        total = [0.0] * pusher.PERIOD
        for worker, steps in steps_of_workers:
            for step in steps:
                total = [a - b for a, b in zip(total, pusher.pattern(worker, step))]
        return data_of(pusher.tensors(total))

    def check_exact(self, again=False):
        """again: trainers were started anew, so repeats may stand in rejected/, and what they left in gradients/."""
        steps = [(trainer.worker, trainer.done()) for trainer in self.trainers]
        for worker, done in steps:
            self.assertEqual(done, list(range(len(done))))
            self.assertGreater(len(done), 1)
        self.assertEqual(self.model.bits(), self.sum_of(steps), "not what a serial program computes")
        self.assertEqual(self.model.version(), self.first + sum(len(done) for _, done in steps))
        status = self.model.status()["workers"]
        self.assertEqual({worker: int(seen["last_step"]) for worker, seen in status.items()},
                         {f"w{worker}": done[-1] for worker, done in steps})
        if not again:
            self.assertEqual(self.model.rejected(), [])
            self.assertEqual(os.listdir(self.model.file("gradients")), [])
        print(f"{self._testMethodName}: {sum(len(done) for _, done in steps)} gradients", file=sys.stderr, flush=True)
