"""A writer of one gradient, and what became of it: landed once and whole, refused, or neither."""
import os
import subprocess
import time

import safetensors
from case import ClusterCase, write_file
from model import Model, data_of, integers, minus
from safetensors import f32

SHAPES = {"w": [256, 200], "b": [100]}
SETTLE_S = 0.4


class LandingCase(ClusterCase):
    def setUp(self):
        super().setUp()
        self.model = Model(self.cluster, {name: f32(shape, integers(shape, 1)) for name, shape in SHAPES.items()})
        # No zeros: bytes that are not there yet would show.
        self.gradient = {name: f32(shape, [x if x else 9.0 for x in integers(shape, 2)])
                         for name, shape in SHAPES.items()}
        self.content = safetensors.pack(self.gradient)
        self.header = len(self.content) - 4 * sum(len(tensor.data) for tensor in self.gradient.values())
        self.half = self.header + (len(self.content) - self.header) // 2
        self.before = data_of(self.model.start)
        self.after = data_of(minus(self.model.start, self.gradient))
        self.local = self.cluster.local("g.safetensors")
        write_file(self.local, self.content)
        self.target = self.model.file("gradients", "x")

    def create(self, flags=os.O_WRONLY):
        return os.open(self.target, flags | os.O_CREAT, 0o644)

    def landed(self):
        """The gradient was taken, once and whole, and nothing comes after."""
        self.eventually(lambda: self.model.bits() != self.before, "the model changed")
        time.sleep(SETTLE_S)
        self.assertEqual(self.model.bits(), self.after, "not once and whole")
        self.assertEqual(self.model.rejected(), [])
        self.assertEqual(os.listdir(self.model.file("gradients")), [])

    def landed_or_refused(self):
        """The gradient was taken, once and whole; or the model is untouched and rejected/ says why."""
        def outcome():
            bits = self.model.bits()
            return bits != self.before or self.model.rejected()

        self.eventually(outcome, "the gradient landed or was refused")
        time.sleep(SETTLE_S)
        if self.model.bits() == self.before:
            self.assertIn("x", self.model.rejected())
            self.assertNotEqual(self.model.reason("x"), "")
        else:
            self.assertEqual(self.model.bits(), self.after, "not once and whole")

    def never_lands(self):
        time.sleep(1)
        self.assertEqual(self.model.bits(), self.before)
        self.model.push(self.gradient, name="next")
        self.assertEqual(self.model.bits(), self.after)

    def shell(self, script):
        done = subprocess.run(["bash", "-c", script, self.local, self.target], capture_output=True, timeout=30)
        self.assertEqual(done.returncode, 0, done.stderr)
