"""A model learns from files: what is pushed is subtracted, once, and seen by who maps the model."""
import array
import errno
import json
import mmap
import os
import shutil
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import safetensors
from case import ClusterCase, read_file, write_file
from model import Model, data_of, integers, minus, small_tensors
from safetensors import f32

STRANGER = """
import json, os, struct, sys
folder = sys.argv[1]
with open(folder + "/model.safetensors", "rb") as f:
    length = struct.unpack("<Q", f.read(8))[0]
    header = json.loads(f.read(length))
header.pop("__metadata__", None)
size = max(entry["data_offsets"][1] for entry in header.values())
gradient = struct.pack("<%df" % (size // 4), *[i % 13 - 6 for i in range(size // 4)])
text = json.dumps(header).encode()
with open(folder + "/gradients/from-a-stranger", "wb") as f:
    f.write(struct.pack("<Q", len(text)) + text + gradient)
"""


class Create(ClusterCase):
    def test_from_a_file(self):
        model = Model(self.cluster)
        read = model.read()
        self.assertEqual({name: tensor.shape for name, tensor in read.items()},
                         {name: tensor.shape for name, tensor in model.start.items()})
        self.assertEqual(model.bits(), data_of(model.start))
        for name in ("gradients", "slots", "rejected"):
            self.assertTrue(os.path.isdir(model.file(name)), name)
            self.assertEqual(os.listdir(model.file(name)), [])
        for name in ("optimizer.safetensors", "descent.toml", "status.json"):
            self.assertTrue(os.path.isfile(model.file(name)), name)

    def test_from_layers(self):
        self.cluster.fsctl("model", "create", "/models/layers", "--layers", "20,30,10", "--seed", "5")
        file = safetensors.read(self.mnt("models/layers/model.safetensors"))
        self.assertEqual({name: tensor.shape for name, tensor in file.tensors.items()},
                         {"fc1.weight": [30, 20], "fc1.bias": [30], "fc2.weight": [10, 30], "fc2.bias": [10]})
        for name, tensor in file.tensors.items():
            bound = 1 / (20 if name.startswith("fc1") else 30) ** 0.5
            self.assertEqual(tensor.dtype, "F32")
            self.assertLessEqual(max(map(abs, tensor.data)), bound * 1.0001, name)
        weights = file.tensors["fc1.weight"].data
        self.assertGreater(len(set(weights)), 500)
        self.assertLess(abs(sum(weights) / len(weights)), 0.05)

    def test_layers_follow_the_seed(self):
        for name, seed in (("s1", 1), ("s1again", 1), ("s2", 2)):
            self.cluster.fsctl("model", "create", f"/models/{name}", "--layers", "8,4", "--seed", seed)
        data = [data_of(safetensors.read(self.mnt(f"models/{name}/model.safetensors")).tensors)
                for name in ("s1", "s1again", "s2")]
        self.assertEqual(data[0], data[1])
        self.assertNotEqual(data[0], data[2])

    def test_data_starts_on_a_page(self):
        adam = Model(self.cluster, optimizer="adam")
        for path in (Model(self.cluster).parameters, adam.file("optimizer.safetensors")):
            start = safetensors.read(path).data_start
            self.assertEqual(start % 4096, 0, path)
            self.assertGreater(start, 0)

    def test_plain_files_have_nothing_bound_to_them(self):
        self.cluster.fsctl("model", "create", "/models/plain", "--layers", "4,2", "--plain")
        path = self.mnt("models/plain/model.safetensors")
        before = read_file(path)
        os.makedirs(self.mnt("models/plain/gradients"), exist_ok=True)
        write_file(self.mnt("models/plain/gradients/g"), b"anything")
        self.assertEqual(read_file(self.mnt("models/plain/gradients/g")), b"anything")
        self.assertEqual(read_file(path), before)

    def test_a_model_is_not_made_twice(self):
        model = Model(self.cluster)
        done = self.cluster.fsctl("model", "create", model.path, "--layers", "4,2", check=False)
        self.assertEqual((done.code, len(done.err.splitlines())), (1, 1), str(done))
        self.assertEqual(model.bits(), data_of(model.start))


class Push(ClusterCase):
    def test_a_script_that_never_heard_of_gradfs(self):
        model = Model(self.cluster)
        done = subprocess.run([sys.executable, "-I", "-c", STRANGER, model.dir], capture_output=True, timeout=30)
        self.assertEqual(done.returncode, 0, done.stderr)
        flat = array.array("f")
        for tensor in model.read().values():
            flat.extend(tensor.data)
        start = array.array("f")
        for tensor in (model.start[name] for name in model.read()):
            start.extend(tensor.data)
        self.assertEqual([a - b for a, b in zip(start, flat)], [i % 13 - 6 for i in range(len(flat))])

    def test_a_map_shows_the_step_when_close_returns(self):
        model = Model(self.cluster)
        with open(model.parameters, "rb") as f:
            view = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
        expected = model.start
        for k in range(20):
            self.assertEqual(data_of(safetensors.unpack(view[:]).tensors), data_of(expected))
            gradient = small_tensors(seed=100 + k)
            model.push(gradient, name=f"g{k}")
            expected = minus(expected, gradient)
            self.assertEqual(data_of(safetensors.unpack(view[:]).tensors), data_of(expected), f"after push {k}")
            self.assertEqual(model.bits(), data_of(expected))
        view.close()

    def test_a_subset_leaves_the_rest(self):
        model = Model(self.cluster)
        gradient = {"head": f32([1, 5, 3], integers([15], 3))}
        model.push(gradient)
        self.assertEqual(model.bits(), data_of(minus(model.start, gradient)))

    def test_tensors_in_any_order(self):
        model = Model(self.cluster)
        gradient = dict(reversed(list(small_tensors(seed=9).items())))
        model.push(gradient)
        self.assertEqual(model.bits(), data_of(minus(model.start, gradient)))

    def test_a_landed_file_leaves_its_name(self):
        model = Model(self.cluster)
        model.push(model.start, name="g")
        self.assertEqual(os.listdir(model.file("gradients")), [])
        with self.fails(errno.ENOENT):
            os.stat(model.file("gradients", "g"))
        self.assertEqual(model.rejected(), [])
        model.push(model.start, name="g")
        self.assertEqual(model.bits(), data_of(minus(model.start, model.start, 2)))

    def test_rename_from_another_folder(self):
        model = Model(self.cluster)
        folder = self.fresh_dir()
        write_file(folder + "/g", safetensors.pack(model.start))
        os.rename(folder + "/g", model.file("gradients", "g"))
        expected = data_of(minus(model.start, model.start))
        self.eventually(lambda: model.bits() == expected, "the gradient is applied")
        self.assertEqual((os.listdir(folder), os.listdir(model.file("gradients"))), ([], []))
        time.sleep(0.3)
        self.assertEqual(model.bits(), expected)

    def test_rename_from_a_dot_name(self):
        model = Model(self.cluster)
        hidden = model.file("gradients", ".g.tmp")
        write_file(hidden, safetensors.pack(model.start))
        time.sleep(0.3)
        self.assertEqual(model.bits(), data_of(model.start), "a dot-name landed")
        self.assertEqual(os.listdir(model.file("gradients")), [".g.tmp"])
        os.rename(hidden, model.file("gradients", "g"))
        expected = data_of(minus(model.start, model.start))
        self.eventually(lambda: model.bits() == expected, "the gradient is applied")
        self.assertEqual(os.listdir(model.file("gradients")), [])

    def test_dot_names_never_land(self):
        model = Model(self.cluster)
        content = safetensors.pack(model.start)
        write_file(model.file("gradients", ".a"), content)
        os.rename(model.file("gradients", ".a"), model.file("gradients", ".b"))
        write_file(self.mnt("outside"), content)
        os.rename(self.mnt("outside"), model.file("gradients", ".c"))
        write_file(model.file("gradients", ".bad"), b"not a gradient")
        fd = os.open(model.file("gradients", ".b"), os.O_RDWR)
        os.fsync(fd)
        os.close(fd)
        os.unlink(model.file("gradients", ".c"))
        time.sleep(0.3)
        self.assertEqual(model.bits(), data_of(model.start))
        self.assertEqual(read_file(model.file("gradients", ".b")), content)
        self.assertEqual(model.rejected(), [])

    def test_fsync_in_gradients_does_not_push(self):
        model = Model(self.cluster)
        content = safetensors.pack(model.start)
        fd = os.open(model.file("gradients", "g"), os.O_WRONLY | os.O_CREAT)
        os.write(fd, content[:500])
        os.fsync(fd)
        os.write(fd, content[500:])
        os.fsync(fd)
        self.assertEqual(model.bits(), data_of(model.start))
        os.close(fd)
        self.assertEqual(model.bits(), data_of(minus(model.start, model.start)))

    def test_a_gradient_that_is_deleted_while_open_does_not_land(self):
        model = Model(self.cluster)
        fd = os.open(model.file("gradients", "g"), os.O_WRONLY | os.O_CREAT)
        os.write(fd, safetensors.pack(model.start))
        os.unlink(model.file("gradients", "g"))
        os.close(fd)
        time.sleep(0.3)
        self.assertEqual(model.bits(), data_of(model.start))

    def test_four_writers_at_once(self):
        model = Model(self.cluster, {"w": f32([64, 256], integers([64 * 256], 1))})

        def write(worker):
            for step in range(50):
                gradient = {"w": f32([64, 256], integers([64 * 256], worker * 50 + step))}
                model.push(gradient, name=f"{worker}-{step}", run="r", worker=f"w{worker}", step=step)

        children = [self.fork(write, worker) for worker in range(4)]
        expected = list(model.start["w"].data)
        for k in range(200):
            expected = [a - b for a, b in zip(expected, integers([64 * 256], k))]
        self.assertEqual([child.wait(50) for child in children], [0] * 4)
        self.assertEqual(model.bits()["w"], array.array("f", expected).tobytes())
        self.assertEqual({w: int(seen["last_step"]) for w, seen in model.status()["workers"].items()},
                         {f"w{worker}": 49 for worker in range(4)})

    def test_two_models_at_once(self):
        models = [Model(self.cluster), Model(self.cluster, small_tensors(seed=50))]

        def write(model, seed):
            for k in range(30):
                model.push(small_tensors(seed=seed + k), name=f"g{k}")

        children = [self.fork(write, model, 1000 * n) for n, model in enumerate(models)]
        self.assertEqual([child.wait(30) for child in children], [0, 0])
        for n, model in enumerate(models):
            expected = model.start
            for k in range(30):
                expected = minus(expected, small_tensors(seed=1000 * n + k))
            self.assertEqual(model.bits(), data_of(expected))


class State(ClusterCase):
    def test_opening_the_model_for_reading_and_writing_is_denied(self):
        model = Model(self.cluster)
        for name in ("model.safetensors", "optimizer.safetensors"):
            with self.fails(errno.EACCES):
                os.open(model.file(name), os.O_RDWR)

    def test_status_and_attributes_follow_the_pushes(self):
        model = Model(self.cluster)
        first, status = model.version(), model.status()
        self.assertEqual(status["version"], first)
        self.assertEqual(status["optimizer"], "sgd")
        self.assertEqual(float(status["lr"]), 1.0)
        for k in range(1, 6):
            model.push(model.start, run="r", worker=f"w{k % 2}", step=k, loss=0.5)
            now = model.status()
            self.assertEqual(model.version(), first + k)
            self.assertEqual(now["version"], first + k)
            self.assertEqual(now["sequence"], status["sequence"] + k)
            self.assertEqual(now["applied"], status["applied"] + k)
            self.assertEqual(int(now["workers"][f"w{k % 2}"]["last_step"]), k)
            self.assertEqual(int(os.getxattr(model.parameters, "user.gradfs.sequence")), now["sequence"])
        self.assertEqual(float(model.status()["loss"]), 0.5)
        self.assertEqual(os.getxattr(model.parameters, "user.gradfs.optimizer"), b"sgd")
        with self.fails(errno.EINVAL):
            write_file(model.file("gradients", "bad"), b"bad")
        self.assertEqual(model.status()["refused"], status["refused"] + 1)
        self.assertEqual(model.version(), first + 5)
        self.assertFalse([key for key in os.listxattr(model.parameters) if key.startswith("user.gradfs")])

    def test_status_is_as_long_as_its_size_says(self):
        model = Model(self.cluster)
        fd = os.open(model.file("status.json"), os.O_RDONLY)
        text = b""
        while chunk := os.read(fd, 50):
            text += chunk
        os.close(fd)
        json.loads(text)
        with self.fails(errno.EACCES, errno.EPERM):
            os.open(model.file("status.json"), os.O_WRONLY)

    def test_a_moved_model_keeps_working(self):
        model = Model(self.cluster)
        model.push(model.start, run="r", worker="w", step=1)
        version = model.version()
        os.mkdir(self.mnt("elsewhere"))
        os.rename(model.dir, self.mnt("elsewhere/moved"))
        model.dir, model.path = self.mnt("elsewhere/moved"), "/elsewhere/moved"
        self.assertEqual(model.version(), version)
        with self.fails(errno.EEXIST):
            model.push(model.start, run="r", worker="w", step=1)
        model.push(model.start, run="r", worker="w", step=2)
        self.assertEqual(model.bits(), data_of(minus(model.start, model.start, 2)))
        self.assertIn("/elsewhere/moved", self.cluster.fsctl("coproc", "list").out)

    def test_a_removed_model_is_gone(self):
        model = Model(self.cluster)
        model.push(model.start)
        with self.fails(errno.EINVAL):
            write_file(model.file("gradients", "bad"), b"bad")
        self.assertIn(model.path, self.cluster.fsctl("coproc", "list").out)
        done = subprocess.run(["rm", "-r", model.dir], capture_output=True, stdin=subprocess.DEVNULL, timeout=20)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertFalse(os.path.exists(model.dir))
        self.assertNotIn(model.path, self.cluster.fsctl("coproc", "list").out)
        again = Model(self.cluster)
        shutil.rmtree(again.dir)
        os.makedirs(again.file("gradients"))
        write_file(again.file("gradients", "g"), b"only a file now")
        self.assertEqual(read_file(again.file("gradients", "g")), b"only a file now")

    def test_a_model_under_an_old_name_is_new(self):
        model = Model(self.cluster)
        model.push(model.start, run="r", worker="w", step=1)
        shutil.rmtree(model.dir)
        seed_file = self.cluster.local("again.safetensors")
        safetensors.write(seed_file, model.start)
        self.cluster.fsctl("model", "create", model.path, "--from", seed_file, "--optimizer", "sgd", "--lr", "1")
        model.push(model.start, run="r", worker="w", step=1)
        self.assertEqual(model.bits(), data_of(minus(model.start, model.start)))


if __name__ == "__main__":
    unittest.main(verbosity=2)
