"""PyTorch on a mount: tensors over the model, and a training loop whose optimizer is gradfs."""
import errno
import os
import signal
import subprocess
import sys
import unittest
import warnings

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import package
import torch
import torch_worker
from case import ClusterCase
from model import Model, config
from safetensors import f32

import gradfs
import gradfs.torch
from torch_worker import evaluate, network, train

STEPS = 50
# What descent.toml says and torch calls it alike.
RULES = {
    "sgd": ("sgd", torch.optim.SGD, dict(lr=0.1)),
    "sgd_decay": ("sgd", torch.optim.SGD, dict(lr=0.1, weight_decay=0.01)),
    "momentum": ("momentum", torch.optim.SGD, dict(lr=0.05, momentum=0.9)),
    "nesterov": ("nesterov", torch.optim.SGD, dict(lr=0.05, momentum=0.9)),
    "adam": ("adam", torch.optim.Adam, dict(lr=0.01)),
    "adamw": ("adamw", torch.optim.AdamW, dict(lr=0.01, weight_decay=0.1)),
}


def configuration(rule):
    name, _, values = RULES[rule]
    return config(name, **values, profile='"torch1-fma"')  # subnormal numbers are kept, as torch does


def local_optimizer(rule, net):
    name, kind, values = RULES[rule]
    return kind(net.parameters(), **values, **(dict(nesterov=True) if name == "nesterov" else {}))


def bits(net):
    return {name: tensor.detach().numpy().tobytes() for name, tensor in net.state_dict().items()}


class Case(ClusterCase):
    limit_s = 100

    def setUp(self):
        super().setUp()
        torch.set_num_threads(1)

    def make(self, rule="adam", net=None):
        """A model on the mount with the network's parameters."""
        tensors = {name: f32(list(t.shape), t.detach().flatten().tolist())
                   for name, t in (net or network()).state_dict().items()}
        self.made = Model(self.cluster, tensors)
        self.made.configure(configuration(rule))
        self.before = self.made.version()
        return self.made.dir

    def optimizer(self, net, worker="w0", **more):
        optimizer = gradfs.torch.RemoteOptimizer(net, self.made.dir, run="r", worker=worker, **more)
        self.addCleanup(optimizer.close)
        return optimizer

    def local(self, rule, steps=STEPS):
        net = network()
        train(net, local_optimizer(rule, net), 0, range(steps))
        return net


class Tensors(Case):
    def test_tensors_are_the_model(self):
        directory = self.make("sgd")
        model = gradfs.Model(directory)
        self.addCleanup(model.close)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tensors = gradfs.torch.tensors(model)
        for _ in range(3):
            self.assertEqual({name: t.numpy().tobytes() for name, t in tensors.items()}, dict(self.made.bits()))
            self.assertEqual({name: list(t.shape) for name, t in tensors.items()},
                             {name: t.shape for name, t in self.made.start.items()})
            model.push({name: torch.randn(t.shape) for name, t in tensors.items()})

    def test_a_write_stays_in_this_process(self):
        self.make("sgd")
        model = gradfs.Model(self.made.dir)
        before = self.made.bits()
        gradfs.torch.tensors(model)["0.weight"].fill_(7)
        self.assertEqual(self.made.bits(), before)
        self.assertEqual(model.tensors["0.weight"].tobytes(), before["0.weight"])

    def test_saving_a_module(self):
        net = network(seed=3)
        path = self.cluster.local("net.safetensors")
        gradfs.save_model(path, net.state_dict(), {"format": "pt"})
        self.cluster.fsctl("model", "create", "/models/saved", "--from", path, "--optimizer", "adam")
        loaded = network(seed=4)
        loaded.load_state_dict(gradfs.torch.tensors(gradfs.Model(self.mnt("models/saved"))))
        self.assertEqual(bits(loaded), bits(net))
        with self.assertRaisesRegex(TypeError, "num_batches_tracked is torch.int64"):
            gradfs.save_model(path, torch.nn.BatchNorm1d(3).state_dict())


class Loop(Case):
    """The same loop, here with torch.optim and there with gradfs: the same bits."""

    def same(self, rule, **more):
        self.make(rule)
        net = network(seed=1)  # gets the parameters of gradfs
        train(net, self.optimizer(net, **more), 0, range(STEPS))
        self.assertTrue(bits(net) == bits(self.local(rule)), "not the bits of torch.optim")
        self.assertTrue(bits(net) == dict(self.made.bits()), "the module is not the model")
        self.assertEqual(self.made.version(), self.before + STEPS)
        self.assertEqual(int(self.made.status()["workers"]["w0"]["last_step"]), STEPS - 1)

    def test_through_files(self):
        self.same("adam", through="file")
        self.assertEqual(os.listdir(self.made.file("slots")), [])

    def test_through_renamed_files(self):
        self.same("adam", through="rename")

    def test_the_loss_falls(self):
        self.make("adam")
        net = network()
        before = evaluate(net)
        train(net, self.optimizer(net), 0, range(STEPS))
        self.assertLess(evaluate(net), 0.9 * before)

    def test_a_closure(self):
        self.make("sgd")
        net, again = network(), network()
        optimizer, local = self.optimizer(net), local_optimizer("sgd", again)
        inputs, labels = torch_worker.batch(0, 0)
        for n, o in ((net, optimizer), (again, local)):
            def closure(n=n, o=o):
                o.zero_grad()
                loss = torch.nn.functional.cross_entropy(n(inputs), labels)
                loss.backward()
                return loss

            self.assertIsInstance(o.step(closure).item(), float)
        self.assertEqual(bits(net), bits(again))
        self.assertIn("loss", self.made.status()["workers"]["w0"])

    def test_nothing_to_push(self):
        self.make("sgd")
        net = network()
        optimizer = self.optimizer(net)
        optimizer.step()
        self.assertEqual((self.made.version(), optimizer.next_step), (self.before, 0))

    def test_a_parameter_that_is_written_in_place(self):
        for parameters in ("copy", "map"):
            self.make("sgd")
            net = network()
            optimizer = self.optimizer(net, parameters=parameters)
            with torch.no_grad():
                net[0].weight.fill_(7)
            optimizer.step()
            self.assertEqual(bits(net), dict(self.made.bits()), parameters)

    def test_autograd_notices_a_step_between_forward_and_backward(self):
        self.make("sgd")
        net = network()
        optimizer = self.optimizer(net)
        train(net, optimizer, 0, range(1))
        inputs, labels = torch_worker.batch(0, 1)
        loss = torch.nn.functional.cross_entropy(net(inputs), labels)
        optimizer.step()
        with self.assertRaisesRegex(RuntimeError, "modified by an inplace operation"):
            loss.backward()

    def test_mapped_parameters_take_no_memory_of_their_own(self):
        self.make("sgd")
        net = network()
        self.optimizer(net, parameters="map")
        address = net[0].weight.data_ptr()
        with open("/proc/self/maps") as file:
            maps = [line.split() for line in file if self.made.parameters in line]
        spans = [[int(end, 16) for end in fields[0].split("-")] for fields in maps]
        self.assertTrue(any(begin <= address < end for begin, end in spans), maps)
        other = gradfs.Model(self.made.dir)
        self.addCleanup(other.close)
        other.push({"0.weight": torch.ones(20, 12)})
        self.assertEqual(bits(net), dict(self.made.bits()), "the parameters did not move")


for _rule in RULES:
    for _parameters in ("copy", "map"):
        def _test(self, rule=_rule, parameters=_parameters):
            self.same(rule, parameters=parameters)

        setattr(Loop, f"test_{_rule}_{_parameters}", _test)


class Refusals(Case):
    def test_a_gradient_that_is_not_finite(self):
        self.make()
        net = network()
        optimizer = self.optimizer(net)
        train(net, optimizer, 0, range(3))
        before = bits(net)
        train_to_nan(net)
        with self.assertRaises(gradfs.NotFinite) as raised:
            optimizer.step()
        self.assertEqual(raised.exception.errno, errno.EDOM)
        self.assertIn("0.weight", raised.exception.reason)
        self.assertEqual(self.made.reason("r-w0.safetensors").strip(), raised.exception.reason)
        self.assertEqual(bits(net), before)
        train(net, optimizer, 0, range(3, STEPS))
        self.assertEqual(bits(net), bits(self.local("adam")), "the loop goes on as if nothing had been")

    def test_a_repeated_step_counts_once(self):
        self.make("sgd")
        net = network()
        optimizer = self.optimizer(net)
        train(net, optimizer, 0, range(2))
        before = bits(net)
        optimizer.next_step = 1
        optimizer.step()
        self.assertEqual((bits(net), self.made.version(), optimizer.next_step), (before, self.before + 2, 2))

    def test_a_gradient_that_is_too_stale_is_dropped(self):
        self.make("sgd")
        net = network()
        optimizer = self.optimizer(net)
        train(net, optimizer, 0, range(1))

        def refuse(*_, **__):
            raise gradfs.TooStale(errno.ERANGE, "too stale", "/slots/w0")

        push, optimizer.remote.push = optimizer.remote.push, refuse
        other = gradfs.Model(self.made.dir, run="r", worker="other")
        self.addCleanup(other.close)
        other.push({"unused": torch.ones(5)})
        optimizer.step()
        self.assertEqual((optimizer.dropped, optimizer.next_step), (1, 1))
        self.assertEqual(bits(net), dict(self.made.bits()), "the parameters were not read again")
        optimizer.remote.push = push
        optimizer.step()
        self.assertEqual((optimizer.dropped, optimizer.next_step), (1, 2))

    def test_modules_that_do_not_fit(self):
        self.make()
        bigger, smaller, other, double, sparse = network(), network(), network(), network(), network()
        bigger.more = torch.nn.Linear(2, 2)
        del smaller.unused
        other[0] = torch.nn.Linear(11, 20)
        double.double()
        for net, text in ((bigger, "lacks what the module has: more.weight, more.bias$"),
                          (smaller, "has what the module lacks: unused$"), (double, "torch.float64"),
                          (other, r"0.weight has shape \[20, 12\]; the module's is \[20, 11\]$")):
            with self.assertRaisesRegex(gradfs.Mismatch, text) as raised:
                self.optimizer(net)
            self.assertEqual(len(str(raised.exception).splitlines()), 1)
            self.assertIn(self.made.dir, str(raised.exception))
        optimizer = self.optimizer(sparse)
        sparse.unused.grad = torch.zeros(5).to_sparse()
        with self.assertRaisesRegex(gradfs.InvalidGradient, "sparse"):
            optimizer.step()
        self.assertEqual(self.made.version(), self.before)

    def test_no_such_directory(self):
        with self.assertRaises(FileNotFoundError):
            gradfs.torch.RemoteOptimizer(network(), self.mnt("nothing"))
        with self.assertRaisesRegex(ValueError, "'copy' and 'map'"):
            gradfs.torch.RemoteOptimizer(network(), self.mnt("nothing"), parameters="both")


def train_to_nan(net):
    for parameter in net.parameters():
        if parameter.grad is not None:
            parameter.grad.zero_()
    net[0].weight.grad[3, 4] = float("nan")


class Processes(Case):
    def start(self, worker, last, parameters="copy"):
        output = self.cluster.local(f"{self.made.name}-{worker}.log")
        with open(output, "ab") as log:
            command = [sys.executable, "-B", torch_worker.__file__, self.made.dir, str(worker), str(last), parameters]
            child = subprocess.Popen(command, stdout=log, stderr=log, env=package.environment())
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        child.output = output
        return child

    def said(self, child):
        with open(child.output, errors="replace") as log:
            return log.read()

    def two_workers(self, parameters):
        self.make("adam")
        before = evaluate(network())
        children = [self.start(worker, STEPS, parameters) for worker in range(2)]
        for child in children:
            self.assertEqual(child.wait(60), 0, self.said(child))
            self.assertEqual(len(self.said(child).splitlines()), STEPS)
        status = self.made.status()
        self.assertEqual(status["version"], self.before + 2 * STEPS)
        self.assertEqual({worker: int(row["last_step"]) for worker, row in status["workers"].items()},
                         {"w0": STEPS - 1, "w1": STEPS - 1})
        net = network()
        net.load_state_dict(gradfs.torch.tensors(gradfs.Model(self.made.dir)))
        self.assertLess(evaluate(net), 0.9 * before)
        self.assertEqual((os.listdir(self.made.file("slots")), self.made.rejected()), ([], []))

    def test_two_workers(self):
        self.two_workers("copy")

    def test_two_workers_on_one_map(self):
        self.two_workers("map")

    def test_a_worker_that_was_killed_goes_on(self):
        self.make("adam")
        for _ in range(2):
            before = self.made.version()
            child = self.start(0, 100000)
            self.eventually(lambda: self.made.version() > before + 3 or child.poll() is not None, "it trains", 60)
            child.kill()
            self.assertEqual(child.wait(20), -signal.SIGKILL, self.said(child))
        model = gradfs.Model(self.made.dir)
        model.wait_applied()
        last = model.next_step("w0") + 5
        child = self.start(0, last)
        self.assertEqual(child.wait(60), 0, self.said(child))
        self.assertEqual(self.made.version(), self.before + last)
        self.assertTrue(dict(self.made.bits()) == bits(self.local("adam", last)), "not what one life computes")

    def test_a_child_of_a_fork(self):
        self.make("sgd")
        net = network()
        optimizer = self.optimizer(net)
        for parameter in net.parameters():
            parameter.grad = torch.ones_like(parameter)

        def child():
            with self.assertRaisesRegex(gradfs.WrongProcess, "worker name of its own"):
                optimizer.step()

        self.in_child(child)
        self.assertEqual(self.made.version(), self.before)
        optimizer.step()
        self.assertEqual(self.made.version(), self.before + 1)

    def test_training_goes_on_over_restarts(self):
        restarter = package.Restarter(self)
        for parameters, names in (("copy", ("worker-0", "master", "mount")), ("map", ("worker-0", "master"))):
            self.make("adam")
            net = network()
            optimizer = self.optimizer(net, parameters=parameters)
            for k, name in enumerate(names):
                train(net, optimizer, 0, range(2 * k, 2 * k + 1))
                restarter.kill9(name)
                train(net, optimizer, 0, range(2 * k + 1, 2 * k + 2))
                restarter.wait()
            train(net, optimizer, 0, range(2 * len(names), 10))
            self.assertTrue(bits(net) == bits(self.local("adam", 10)), parameters)
            self.assertEqual(bits(net), dict(self.made.bits()))


if __name__ == "__main__":
    unittest.main(verbosity=2)
