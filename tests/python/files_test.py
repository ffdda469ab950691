"""Python with nothing but the standard library: first by hand, then by the package."""
import array
import errno
import json
import math
import mmap
import os
import random
import signal
import struct
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import numpy as np
import package
import safetensors
from case import ClusterCase
from model import Model, config, data_of, minus, small_tensors

import gradfs

RATE = 0.125  # a power of two: the product is exact, and parameter - rate * gradient is rounded once
STEPS = 20


def noise(start, step):
    """A gradient for each tensor of the model, of values that round."""
    random = np.random.default_rng(step)
    return {name: random.standard_normal(tensor.shape).astype(np.float32) for name, tensor in start.items()}


def serial(start, gradients):
    """What plain SGD makes of the model, one gradient after the other, in F32."""
    values = {name: np.array(tensor.data, np.float32).reshape(tensor.shape) for name, tensor in start.items()}
    for gradient in gradients:
        for name, g in gradient.items():
            values[name] = values[name] - np.float32(RATE) * g
    return {name: value.tobytes() for name, value in values.items()}


class Case(ClusterCase):
    def setUp(self):
        super().setUp()
        self.made = Model(self.cluster, lr=RATE)
        self.directory = self.made.dir

    def noise(self, step):
        return noise(self.made.start, step)

    def open(self, worker="w0", run="r"):
        model = gradfs.Model(self.directory, run=run, worker=worker)
        self.addCleanup(model.close)
        return model

    def expect(self, gradients):
        expected = serial(self.made.start, gradients)
        self.assertTrue(dict(self.made.bits()) == expected, "not what a serial program computes")

    def counted(self, pushes, last_steps):
        status = self.made.status()
        self.assertEqual(status["version"], pushes)
        self.assertEqual({worker: int(row["last_step"]) for worker, row in status["workers"].items()}, last_steps)


class ByHand(Case):
    """struct, json, open, write, close, fsync; what docs/python.md shows."""

    def content(self, gradient, step):
        header, at = {"__metadata__": {"run": "r", "worker": "w0", "step": str(step)}}, 0
        for name, values in gradient.items():
            header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [at, at + 4 * values.size]}
            at += 4 * values.size
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + b"".join(values.tobytes() for values in gradient.values())

    def test_files(self):
        for step in range(STEPS):
            with open(f"{self.directory}/gradients/w0-{step}", "wb") as file:
                file.write(self.content(self.noise(step), step))
        self.expect(map(self.noise, range(STEPS)))
        self.counted(STEPS, {"w0": STEPS - 1})

    def test_a_slot(self):
        with open(f"{self.directory}/slots/w0", "wb", buffering=0) as slot:
            for step in range(STEPS):
                content = self.content(self.noise(step), step)
                slot.truncate(len(content))
                slot.seek(0)
                slot.write(content)
                os.fsync(slot.fileno())
                self.expect(map(self.noise, range(step + 1)))
        self.counted(STEPS, {"w0": STEPS - 1})

    def test_a_map_of_the_model_moves(self):
        with open(f"{self.directory}/model.safetensors", "rb") as file:
            view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        (length,) = struct.unpack_from("<Q", view)
        entry = json.loads(view[8:8 + length])["head"]
        begin = 8 + length + entry["data_offsets"][0]
        for step in range(3):
            with open(f"{self.directory}/gradients/g{step}", "wb") as file:
                file.write(self.content(self.noise(step), step))
            expected = serial(self.made.start, map(self.noise, range(step + 1)))["head"]
            self.assertEqual(view[begin:begin + len(expected)], expected)

    def test_a_refusal_comes_from_close(self):
        bad = {**self.noise(0), "scale": np.array(math.nan, np.float32)}
        with self.fails(errno.EDOM):
            with open(f"{self.directory}/gradients/g", "wb") as file:
                file.write(self.content(bad, 0))
        self.assertIn("scale", self.made.reason("g"))


class Reading(Case):
    def test_views_are_the_model(self):
        model = self.open()
        self.assertEqual({name: (view.format, list(view.shape), view.readonly) for name, view in model.tensors.items()},
                         {name: ("f", tensor.shape, True) for name, tensor in self.made.start.items()})
        weight = model.tensors["fc.weight"]
        for step in range(3):
            model.push(self.noise(step))
            self.assertEqual(weight.tobytes(), self.made.bits()["fc.weight"], "the view did not move")
        self.expect(map(self.noise, range(3)))

    def test_what_the_model_is(self):
        model = self.open()
        first = model.version, model.sequence
        model.push(self.noise(0), loss=0.25)
        self.assertEqual((model.version, model.sequence), (first[0] + 1, first[1] + 1))
        self.assertEqual((model.optimizer, model.status()["loss"]), ("sgd", 0.25))
        self.assertEqual(model.layout.parameters, sum(len(tensor.data) for tensor in self.made.start.values()))
        self.assertEqual(model.layout.data_start % 4096, 0)

    def test_views_outlive_the_model_object(self):
        model = gradfs.Model(self.directory)
        weight = model.tensors["fc.weight"]
        model.close()
        del model
        self.open().push(self.noise(0))
        self.assertEqual(weight.tobytes(), self.made.bits()["fc.weight"])

    def test_the_optimizers_state(self):
        self.made.configure(config("momentum", RATE, momentum=0.5))
        self.open().push(self.noise(0))
        state = gradfs.TensorFile(self.made.file("optimizer.safetensors")).tensors
        self.assertEqual(state["scale.step"].tolist(), 1)
        self.assertEqual(state["head.momentum_buffer"].tobytes(), self.noise(0)["head"].tobytes())

    def test_a_saved_model_over_a_live_one_is_an_assign(self):
        model = self.open()
        gradfs.save_model(self.made.parameters, self.noise(77))
        self.assertEqual({name: view.tobytes() for name, view in model.tensors.items()},
                         {name: values.tobytes() for name, values in self.noise(77).items()})
        self.assertEqual(model.version, 1)
        with self.fails(errno.EINVAL):
            gradfs.save_model(self.made.parameters, {"scale": np.array(1, np.float32)})
        self.assertEqual(model.version, 1)


class Pushing(Case):
    def every_way(self, through):
        model = self.open()
        for step in range(STEPS):
            pushed = model.push(self.noise(step), through=through, loss=1.0, base_version=step, weight=32)
            self.assertEqual(pushed, gradfs.Pushed("r", "w0", step, False))
            self.expect(map(self.noise, range(step + 1)))
        self.counted(STEPS, {"w0": STEPS - 1})
        self.assertEqual(os.listdir(self.made.file("gradients")), [])
        self.assertEqual(self.made.rejected(), [])
        model.close()
        self.assertEqual(os.listdir(self.made.file("slots")), [])

    def test_slot(self):
        self.every_way("slot")

    def test_file(self):
        self.every_way("file")

    def test_rename(self):
        self.every_way("rename")

    def test_a_slot_with_other_tensors_each_time(self):
        model, pushed = self.open(), []
        for step in range(8):
            gradient = self.noise(step)
            for k, name in enumerate(list(gradient)):
                if (step + k) % 3 == 0:
                    del gradient[name]
            model.push(gradient)
            pushed.append(gradient)
            self.expect(pushed)

    def test_the_kinds_of_array_of_the_standard_library(self):
        model = self.open()
        tensors = small_tensors(seed=9)
        for convert in (lambda t: t.data, lambda t: t.data.tobytes(), lambda t: memoryview(t.data)):
            model.push({name: convert(tensor) for name, tensor in tensors.items()})
        self.assertEqual(self.made.bits(), data_of(minus(self.made.start, tensors, 3 * RATE)))

    def test_workers_and_runs_in_one_process(self):
        model = self.open()
        for step in range(3):
            for worker in ("a", "b"):
                self.assertEqual(model.push(self.noise(step), worker=worker).step, step)
        model.push(self.noise(9), run="another", worker="a", step=0)
        self.counted(7, {"a": 0, "b": 2})

    def test_a_loss_scale(self):
        scaled = {name: values * np.float32(1024) for name, values in self.noise(0).items()}
        self.open().push(scaled, loss_scale=1024)
        self.expect([self.noise(0)])

    def test_names_that_are_no_file_names(self):
        model = self.open(worker="a/../b\n", run=".hidden/ü")
        model.push(self.noise(0))
        model.push(self.noise(1), through="file")
        model.push(self.noise(2), through="rename")
        self.expect(map(self.noise, range(3)))
        self.counted(3, {"a/../b\n": 2})

    def test_signals_while_it_waits(self):
        """A harmless signal ends a close and an fsync with EINTR, and the push stands."""
        model, caught = self.open(), []
        old = signal.signal(signal.SIGALRM, lambda *_: caught.append(1))
        self.addCleanup(signal.signal, signal.SIGALRM, old)
        self.addCleanup(signal.setitimer, signal.ITIMER_REAL, 0)
        delays = random.Random(1)
        for step in range(5 * STEPS):
            gradient = self.noise(step)
            signal.setitimer(signal.ITIMER_REAL, delays.uniform(0.0001, 0.003))
            model.push(gradient, through=("slot", "file", "rename")[step % 3])
        self.assertGreater(len(caught), 0)
        self.expect(map(self.noise, range(5 * STEPS)))
        self.counted(5 * STEPS, {"w0": 5 * STEPS - 1})

    def test_a_repeated_step_counts_once(self):
        model = self.open()
        for through in ("slot", "file", "rename"):
            self.assertEqual(model.push(self.noise(0), step=0, through=through).repeated, through != "slot")
        self.counted(1, {"w0": 0})
        self.expect([self.noise(0)])
        self.assertEqual(os.listdir(self.made.file("gradients")), [])


class Refusals(Case):
    def test_a_gradient_that_is_not_finite(self):
        model = self.open()
        bad = {**self.noise(0), "fc.bias": np.full(31, math.nan, np.float32)}
        for through in ("slot", "file", "rename"):
            with self.assertRaises(gradfs.NotFinite) as raised:
                model.push(bad, through=through)
            error = raised.exception
            self.assertEqual((error.errno, error.run, error.worker, error.step), (errno.EDOM, "r", "w0", 0))
            self.assertIn("fc.bias", error.reason)
            name = os.path.basename(error.filename)
            self.assertEqual(error.reason, self.made.reason(name).strip())
            self.assertEqual(os.listdir(self.made.file("gradients")), [])
        self.assertEqual(len(self.made.rejected()), 3)
        self.counted(0, {})
        self.assertEqual(model.push(self.noise(0)), gradfs.Pushed("r", "w0", 0, False), "the step is not used up")
        self.expect([self.noise(0)])

    def test_metadata_that_the_filesystem_refuses(self):
        model = self.open()
        with self.assertRaises(gradfs.InvalidGradient) as raised:
            model.push(self.noise(0), weight=-1)
        self.assertIn("weight", raised.exception.reason)
        with self.assertRaises(gradfs.InvalidGradient) as raised:
            model.push(self.noise(0), worker="w" * 300)
        self.assertIn("worker", raised.exception.reason)
        self.counted(0, {})

    def test_a_model_of_another_shape_took_the_place(self):
        model = self.open()
        other = Model(self.cluster, {"fc.weight": safetensors.f32([2], [1, 2])}, lr=RATE)
        os.rename(self.directory, self.directory + "-old")
        os.rename(other.dir, self.directory)
        with self.assertRaises(gradfs.InvalidGradient):
            model.push(self.noise(0), step=0)
        self.assertEqual(int(os.getxattr(self.made.parameters, "user.gradfs.version")), 0)

    def test_no_model_there(self):
        model = self.open()
        os.rename(self.directory, self.directory + "-moved")
        for through in ("slot", "file", "rename"):
            with self.assertRaises(gradfs.PushFailed) as raised:
                model.push(self.noise(0), step=0, through=through)
            self.assertEqual(raised.exception.errno, errno.ENOENT)


class Processes(Case):
    def test_two_workers(self):
        def work(worker):
            with gradfs.Model(self.directory, run="r", worker=f"w{worker}") as model:
                for k in range(40):
                    model.push(small_tensors_of(100 * worker + k))

        def small_tensors_of(seed):
            return {name: tensor.data for name, tensor in small_tensors(seed).items()}

        children = [self.fork(work, worker) for worker in range(2)]
        self.assertEqual([child.wait(50) for child in children], [0, 0])
        expected = self.made.start
        for seed in (*range(40), *range(100, 140)):
            expected = minus(expected, small_tensors(seed), RATE)
        self.assertEqual(self.made.bits(), data_of(expected))
        self.counted(80, {"w0": 39, "w1": 39})
        self.assertEqual(os.listdir(self.made.file("slots")), [])

    def test_a_child_of_a_fork(self):
        model = self.open()
        model.push(self.noise(0))

        def child():
            self.assertEqual(model.tensors["head"].tobytes(), self.made.bits()["head"])
            with self.assertRaisesRegex(gradfs.WrongProcess, "worker name of its own"):
                model.push(self.noise(1))
            model.close()
            with gradfs.Model(self.directory, run="r", worker="child") as own:
                own.push(self.noise(1))

        self.in_child(child)
        self.assertEqual(len(os.listdir(self.made.file("slots"))), 1, "the child took its parent's slot away")
        self.assertEqual(model.push(self.noise(2)).step, 1)
        self.expect(map(self.noise, range(3)))

    def test_one_name_for_two_workers(self):
        model = self.open()
        model.push(self.noise(0))

        def child():
            with gradfs.Model(self.directory, run="r", worker="w0") as second:
                with self.assertRaisesRegex(gradfs.SlotInUse, "a name of its own"):
                    second.push(self.noise(1))

        self.in_child(child)
        model.push(self.noise(1))
        self.expect(map(self.noise, range(2)))

    def test_a_worker_that_was_killed_goes_on(self):
        def work():
            with gradfs.Model(self.directory, run="r", worker="w0") as model:
                for step in range(model.next_step(), 10000):
                    model.push(self.noise(step), step=step)

        for life in range(4):
            before = self.made.version()
            child = self.fork(work)
            self.eventually(lambda: self.made.version() > before + 3, "the worker pushes", 30)
            time.sleep(0.003 * life)
            child.kill()
            self.assertEqual(child.wait(10), -signal.SIGKILL)
        model = self.open()
        model.wait_applied()
        steps = model.version
        self.expect(map(self.noise, range(steps)))
        self.counted(steps, {"w0": steps - 1})

    def test_a_program_that_just_ends_frees_its_slot(self):
        script = ("import sys, gradfs; m = gradfs.Model(sys.argv[1]); "
                  "m.push({'scale': bytes(4)}); print(len(__import__('os').listdir(m.path('slots'))))")
        done = subprocess.run([sys.executable, "-B", "-c", script, self.directory], env=package.environment(),
                              capture_output=True, text=True, timeout=30)
        self.assertEqual((done.returncode, done.stdout.strip()), (0, "1"), done.stderr)
        self.assertEqual(os.listdir(self.made.file("slots")), [])


class Restarts(Case):
    """A daemon that is killed and started again is a pause."""

    limit_s = 100

    def setUp(self):
        super().setUp()
        self.restarter = package.Restarter(self)

    def restart(self, name, through):
        model = self.open()
        model.push(self.noise(0), through=through)
        self.restarter.kill9(name)
        self.assertEqual(model.push(self.noise(1), through=through)[:3], ("r", "w0", 1))
        self.restarter.wait()
        model.push(self.noise(2), through=through)
        self.expect(map(self.noise, range(3)))
        self.counted(3, {"w0": 2})
        self.assertEqual(model.tensors["head"].tobytes(), self.made.bits()["head"])

    def test_worker(self):
        self.restart("worker-0", "slot")

    def test_master(self):
        self.restart("master", "slot")

    def test_mount_with_a_slot(self):
        self.restart("mount", "slot")

    def test_mount_with_files(self):
        self.restart("mount", "file")

    def test_mount_with_renamed_files(self):
        self.restart("mount", "rename")

    def test_a_mount_that_stays_away(self):
        model = self.open()
        model.push(self.noise(0))
        self.cluster.kill9("mount")
        with self.assertRaises((gradfs.OutcomeUnknown, gradfs.PushFailed)):
            model.push(self.noise(1), timeout_s=0.1)
        self.cluster.up()
        model.push(self.noise(1))
        self.expect(map(self.noise, range(2)))


if __name__ == "__main__":
    unittest.main(verbosity=2)
