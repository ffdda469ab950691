"""descent.toml: an edit changes rate or optimizer with the next push; a bad one is refused, and the old one stays."""
import errno
import os
import subprocess
import sys
import tomllib
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import reference
import safetensors
from case import ClusterCase, read_file, write_file
from model import Model, config, data_of, integers, minus, small_tensors
from safetensors import f32

BAD = {
    "bad_toml": "[optimizer\nname = ",
    "unknown_optimizer": config("no_such_optimizer", 0.1),
    "negative_rate": config("sgd", -0.5),
    "infinite_rate": config("sgd", "inf"),
    "rate_that_is_text": config("sgd", '"fast"'),
    "unknown_key": config("sgd", 0.5, no_such_key=1),
    "unknown_table": config("sgd", 0.5) + "[no_such_table]\nx = 1\n",
    "beta_of_one_and_a_half": config("adam", 0.5, betas=[0.9, 1.5]),
    "negative_eps": config("adam", 0.5, eps=-1.0),
    "not_utf8": "[optimizer]\nname = \"sgd\"\nlr = 0.5\n# \udcff\udcfe\n",
    "empty_name": config("", 0.5),
    "key_of_another_optimizer": config("lion", 0.5, eps=1e-8),
    "schedule_without_an_end": config("sgd", 0.5) + "[schedule]\nkind = \"cosine\"\n",
}


class Edits(ClusterCase):
    def setUp(self):
        super().setUp()
        self.model = Model(self.cluster)
        self.file = self.model.file("descent.toml")
        self.expected = self.model.start

    def push_at(self, rate):
        """The next push must be taken at this rate."""
        gradient = {name: f32(tensor.shape, [8 * x for x in tensor.data]) for name, tensor in self.model.start.items()}
        self.model.push(gradient)
        self.expected = minus(self.expected, gradient, rate)
        self.assertEqual(self.model.bits(), data_of(self.expected), f"not a step at rate {rate}")

    def test_the_file_says_what_create_was_told(self):
        said = tomllib.loads(read_file(self.file).decode())
        self.assertEqual(said["optimizer"]["name"], "sgd")
        self.assertEqual(said["optimizer"]["lr"], 1.0)
        adam = Model(self.cluster, optimizer="adam", lr=0.125)
        said = tomllib.loads(read_file(adam.file("descent.toml")).decode())
        self.assertEqual((said["optimizer"]["name"], said["optimizer"]["lr"]), ("adam", 0.125))

    def test_rewriting_in_place(self):
        self.push_at(1)
        for rate in (0.5, 0.25, 2.0):
            self.model.configure(config("sgd", rate))
            self.assertEqual(read_file(self.file).decode(), config("sgd", rate))
            self.assertEqual(os.stat(self.file).st_size, len(config("sgd", rate)))
            self.push_at(rate)
            self.assertEqual(float(self.model.status()["lr"]), rate)

    def test_a_shells_redirection(self):
        done = subprocess.run(["bash", "-c", 'printf "%s" "$0" > "$1"', config("sgd", 0.5), self.file],
                              capture_output=True, timeout=20)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(read_file(self.file).decode(), config("sgd", 0.5))
        self.push_at(0.5)

    def test_sed_in_place(self):
        done = subprocess.run(["sed", "-i", r"s/^\( *lr *= *\).*/\10.5/", self.file], capture_output=True, timeout=20)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(tomllib.loads(read_file(self.file).decode())["optimizer"]["lr"], 0.5)
        self.push_at(0.5)
        self.assertFalse([name for name in os.listdir(self.model.dir) if name.startswith("sed")])

    def test_renaming_over(self):
        for k, rate in enumerate((0.5, 0.25)):
            beside = self.model.file(f"descent.toml.new{k}")
            write_file(beside, config("sgd", rate).encode())
            os.rename(beside, self.file)
            self.assertFalse(os.path.exists(beside))
            self.assertEqual(read_file(self.file).decode(), config("sgd", rate))
            self.push_at(rate)

    def test_editing_in_place_without_truncation(self):
        self.model.configure(config("sgd", "0.50"))
        with open(self.file, "r+b") as f:
            at = f.read().index(b"0.50")
            f.seek(at)
            f.write(b"0.25")
        self.push_at(0.25)
        with open(self.file, "ab") as f:
            f.write(b"# a comment\n")
        self.assertEqual(read_file(self.file).decode(), config("sgd", "0.25") + "# a comment\n")
        self.push_at(0.25)

    def test_an_edit_that_is_not_closed_has_no_effect(self):
        old = read_file(self.file)
        fd = os.open(self.file, os.O_WRONLY | os.O_TRUNC)
        os.write(fd, config("sgd", 0.5).encode())
        self.push_at(1)

        def look():
            assert read_file(self.file) in (old, config("sgd", 0.5).encode())

        self.in_child(look)
        os.close(fd)
        self.push_at(0.5)

    def test_an_edit_outlives_a_restart(self):
        self.model.configure(config("sgd", 0.5))
        for name in ("worker-0", "master"):
            self.cluster.kill9(name)
        self.cluster.up()
        self.assertEqual(read_file(self.file).decode(), config("sgd", 0.5))
        self.push_at(0.5)

    def test_a_schedule_follows_the_version(self):
        self.model.configure(config("sgd", 1.0) + "[schedule]\nkind = \"step\"\nevery = 1\ngamma = 0.5\n")
        for version in range(3):
            self.assertEqual(float(self.model.status()["lr"]), 0.5**version)
            self.push_at(0.5**version)
        self.cluster.kill9("worker-0")
        self.cluster.restart("worker-0")
        self.push_at(0.5**3)

    def refuse(self, way, text):
        self.push_at(1)
        old = read_file(self.file)
        content = text.encode(errors="surrogateescape")
        if way == "close":
            fd = os.open(self.file, os.O_WRONLY | os.O_TRUNC)
            os.write(fd, content)
            with self.fails(errno.EINVAL):
                os.close(fd)
        else:
            write_file(self.model.file("new.toml"), content)
            with self.fails(errno.EINVAL):
                os.rename(self.model.file("new.toml"), self.file)
        self.assertEqual(read_file(self.file), old)
        self.assertEqual(os.stat(self.file).st_size, len(old))
        self.push_at(1)
        self.assertEqual(self.model.status()["optimizer"], "sgd")
        self.model.configure(config("sgd", 0.5))
        self.push_at(0.5)


for _kind, _text in BAD.items():
    for _way in ("close", "rename"):
        def _test(self, way=_way, text=_text):
            self.refuse(way, text)

        setattr(Edits, f"test_{_kind}_by_{_way}", _test)


class Optimizers(ClusterCase):
    """Steps against a serial program in double precision."""

    settings = {
        "sgd": dict(lr=0.1),
        "sgd_with_decay": dict(name="sgd", lr=0.1, weight_decay=0.01),
        "momentum": dict(lr=0.05, momentum=0.9),
        "nesterov": dict(lr=0.05, momentum=0.8),
        "adam": dict(lr=0.01, betas=[0.9, 0.999], eps=1e-8),
        "adam_with_decay": dict(name="adam", lr=0.01, betas=[0.8, 0.99], eps=1e-6, weight_decay=0.1),
        "adamw": dict(lr=0.01, betas=[0.9, 0.999], eps=1e-8, weight_decay=0.01),
        "adagrad": dict(lr=0.01, lr_decay=0.1, eps=1e-10, initial_accumulator_value=0.5),
        "rmsprop": dict(lr=0.01, alpha=0.9, eps=1e-8),
        "rmsprop_with_momentum": dict(name="rmsprop", lr=0.01, momentum=0.5, weight_decay=0.1),
        "lion": dict(lr=0.001, betas=[0.9, 0.99], weight_decay=0.5),
        "lamb": dict(lr=0.01, betas=[0.9, 0.999], eps=1e-6, weight_decay=0.01),
    }

    def follow(self, model, name, settings, gradients, values=None, states=None):
        """Pushes gradients and compares the model with the reference after each."""
        values = values or {key: list(tensor.data) for key, tensor in model.read().items()}
        states = states if states is not None else {}
        for k, gradient in enumerate(gradients):
            model.push(gradient, name=f"g{k}")
            for key, tensor in gradient.items():
                values[key] = reference.step(name, values[key], list(tensor.data), states.setdefault(key, {}),
                                             **settings)
            for key, tensor in model.read().items():
                for at, (seen, wanted) in enumerate(zip(tensor.data, values[key])):
                    self.assertAlmostEqual(seen, wanted, delta=2e-6 * max(1, abs(wanted)),
                                           msg=f"{name}: {key}[{at}] after push {k + 1}")
        return values, states

    def gradients(self, number):
        shapes = {name: tensor.shape for name, tensor in small_tensors().items()}
        return [{name: f32(shape, [x / 16 for x in integers(shape, 40 + 7 * k)]) for name, shape in shapes.items()}
                for k in range(number)]

    def check(self, kind):
        settings = dict(self.settings[kind])
        name = settings.pop("name", kind)
        model = Model(self.cluster, optimizer=name)
        model.configure(config(name, **settings))
        return model, self.follow(model, name, settings, self.gradients(4))

    def test_state_is_a_file(self):
        model, (_, states) = self.check("adam")
        file = safetensors.read(model.file("optimizer.safetensors"))
        for key, state in states.items():
            self.assertEqual(file.tensors[f"{key}.step"].shape, [])
            self.assertEqual(list(file.tensors[f"{key}.step"].data), [4.0])
            for part in ("exp_avg", "exp_avg_sq"):
                tensor = file.tensors[f"{key}.{part}"]
                self.assertEqual(tensor.shape, model.start[key].shape)
                for seen, wanted in zip(tensor.data, state[part]):
                    self.assertAlmostEqual(seen, wanted, delta=1e-6)

    def test_momentum_state_is_a_file(self):
        model, (_, states) = self.check("momentum")
        file = safetensors.read(model.file("optimizer.safetensors"))
        for key, state in states.items():
            for seen, wanted in zip(file.tensors[f"{key}.momentum_buffer"].data, state["momentum_buffer"]):
                self.assertAlmostEqual(seen, wanted, delta=1e-5)

    def test_defaults_are_torchs(self):
        for name in ("momentum", "nesterov", "adam", "adamw", "adagrad", "rmsprop", "lion", "lamb"):
            model = Model(self.cluster, optimizer=name, lr=0.01)
            settings = dict(lr=0.01)
            said = tomllib.loads(read_file(model.file("descent.toml")).decode())["optimizer"]
            settings.update({key: value for key, value in said.items() if key not in ("name", "lr", "dampening")})
            self.follow(model, name, settings, self.gradients(3))

    def test_a_tensor_that_is_missing_takes_no_step(self):
        settings = dict(lr=0.01, weight_decay=0.1)
        model = Model(self.cluster, optimizer="adamw")
        model.configure(config("adamw", **settings))
        some = [dict(gradient) for gradient in self.gradients(5)]
        for k in (0, 2, 3):
            del some[k]["fc.weight"]
        self.follow(model, "adamw", settings, some)
        steps = safetensors.read(model.file("optimizer.safetensors")).tensors
        self.assertEqual((steps["fc.weight.step"].data[0], steps["head.step"].data[0]), (2.0, 5.0))

    def test_from_sgd_to_adam_by_an_edit(self):
        model = Model(self.cluster, optimizer="sgd", lr=1.0)
        values, _ = self.follow(model, "sgd", dict(lr=1.0), self.gradients(2))
        model.configure(config("adam", 0.01))
        self.assertEqual(model.status()["optimizer"], "adam")
        self.assertEqual(os.getxattr(model.parameters, "user.gradfs.optimizer"), b"adam")
        self.follow(model, "adam", dict(lr=0.01), self.gradients(4), values)
        self.assertIn("head.exp_avg", safetensors.read(model.file("optimizer.safetensors")).tensors)

    def test_a_new_rate_keeps_the_state(self):
        model = Model(self.cluster, optimizer="adam")
        model.configure(config("adam", 0.01))
        values, states = self.follow(model, "adam", dict(lr=0.01), self.gradients(3))
        model.configure(config("adam", 0.002))
        self.follow(model, "adam", dict(lr=0.002), self.gradients(3), values, states)

    def test_state_outlives_the_worker(self):
        for name in ("adam", "lamb"):
            model = Model(self.cluster, optimizer=name)
            model.configure(config(name, 0.01, weight_decay=0.0))
            values, states = self.follow(model, name, dict(lr=0.01), self.gradients(3))
            self.cluster.kill9("worker-0")
            self.cluster.restart("worker-0")
            self.follow(model, name, dict(lr=0.01), self.gradients(3), values, states)


for _kind in Optimizers.settings:
    setattr(Optimizers, f"test_{_kind}", lambda self, kind=_kind: self.check(kind) and None)


if __name__ == "__main__":
    unittest.main(verbosity=2)
