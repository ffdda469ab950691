"""The Python package without a mount: the format, arrays, what an errno means, how it is packed."""
import array
import errno
import math
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest
import zipfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import package
import safetensors
from badfiles import bad_files
from model import data_of, integers, small_tensors

import gradfs
from gradfs import buffers, pushing
from gradfs import safetensors as format

OF_THE_MODEL = {"wrong_name", "unknown_tensor_more", "wrong_shape", "wrong_rank", "wrong_size", "wrong_dtype_i32",
                "wrong_dtype_f64", "nan", "infinity", "minus_infinity"}  # files that are wrong for a model alone


def read(content):
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        return format.read_layout(file.fileno())


def floats(shape, values):
    """A memoryview of F32 with a shape."""
    view = memoryview(array.array("f", values))
    return view if len(shape) == 1 else view.cast("B").cast("f", shape)


class Format(unittest.TestCase):
    def test_reading(self):
        tensors = small_tensors()
        layout = read(safetensors.pack(tensors, {"run": "r", "step": 7}, pad_to=64))
        self.assertEqual(layout.metadata, {"run": "r", "step": "7"})
        self.assertEqual(layout.data_start % 64, 0)
        self.assertEqual([(t.name, t.dtype, list(t.shape), t.count) for t in layout.tensors.values()],
                         [(name, "F32", t.shape, len(t.data)) for name, t in tensors.items()])
        self.assertEqual(layout.parameters, sum(len(t.data) for t in tensors.values()))

    def test_tensors_come_in_the_order_of_their_data(self):
        header = {"b": {"dtype": "U8", "shape": [3], "data_offsets": [4, 7]},
                  "a": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]},
                  "empty": {"dtype": "F32", "shape": [0, 5], "data_offsets": [4, 4]}}
        self.assertEqual(list(read(safetensors.raw(header, bytes(7))).tensors), ["a", "empty", "b"])

    def test_a_header_that_another_parser_writes(self):
        text = b'{ "w":\n{"shape":[1],"data_offsets":[0,4],"dtype":"F32"}, "__metadata__": {} }   '
        self.assertEqual(list(read(safetensors.raw(text, bytes(4))).tensors), ["w"])

    def test_bad_files(self):
        for kind, (content, _) in bad_files(small_tensors(seed=3)).items():
            with self.subTest(kind):
                if kind in OF_THE_MODEL:
                    read(content)
                    continue
                with self.assertRaises(gradfs.FormatError) as raised:
                    read(content)
                self.assertEqual(len(str(raised.exception).splitlines()), 1)

    def test_more_bad_headers(self):
        for text in (b'{"w": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}}',
                     b'{"w": {"dtype": "F32", "shape": [true], "data_offsets": [0, 4]}}',
                     b'{"w": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 4]}}',
                     b'{"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 4]}}',
                     b'{"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], "more": 1}}',
                     b'{"w": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}}',
                     b'{"w": {"dtype": "F32", "shape": [' + b"1," * 64 + b'1], "data_offsets": [0, 4]}}',
                     b'{"w": {"dtype": "F32", "shape": [' + b"1" * 5000 + b'], "data_offsets": [0, 4]}}',
                     b'{"w": null}', b'{"__metadata__": {"a": 1}}', b'\xff{}', b'{"\xff": 1}', b'{}\n'):
            with self.subTest(text[:60]), self.assertRaises(gradfs.FormatError):
                read(safetensors.raw(text, bytes(4)))

    def test_written_models_are_read_by_another_parser(self):
        tensors = small_tensors(seed=5)
        tensors["a \"strange\" näme"] = safetensors.f32([2], [1, 2])
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "m.safetensors")
            gradfs.save_model(path, {n: floats(t.shape, t.data) for n, t in tensors.items()}, {"epoch": 3})
            file = safetensors.read(path)
            self.assertEqual(data_of(file.tensors), data_of(tensors))
            self.assertEqual({n: t.shape for n, t in file.tensors.items()}, {n: t.shape for n, t in tensors.items()})
            self.assertEqual((file.metadata, file.data_start % 4096), ({"epoch": "3"}, 0))
            again = gradfs.TensorFile(path)
            self.assertEqual({n: v.tolist() for n, v in again.tensors.items()},
                             {n: floats(t.shape, t.data).tolist() for n, t in tensors.items()})

    def test_the_data_starts_on_a_page_whatever_the_header_is(self):
        for length in (0, 1, 3900, 3990, 4000, 4010, 9000):
            header = format.render_header(format.render_tensors({"w": (1,)}), {"run": "x" * length})
            self.assertEqual(len(header) % 4096, 0)
            self.assertEqual(read(header + bytes(4)).metadata, {"run": "x" * length})

    def test_what_cannot_be_saved(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "m.safetensors")
            for bad in ({"w": [1.0]}, {"w": array.array("d", [1])}, {"w": bytes(4)}, {"w": array.array("i", [1])}):
                with self.assertRaisesRegex(TypeError, "^tensor w "):
                    gradfs.save_model(path, bad)
            with self.assertRaises(gradfs.FormatError):
                gradfs.save_model(path, {"__metadata__": array.array("f", [1])})
            self.assertEqual(os.listdir(folder), [])

    def test_dtypes(self):
        with open(os.path.join(package.ROOT, "coproc/descent/safetensors.cc"), encoding="utf-8") as file:
            table = re.search(r"kDtypes\{\{(.*?)\}\};", file.read(), re.S).group(1)
        wanted = {name: int(size) for name, size in re.findall(r'\{"(\w+)", (\d)\}', table)}
        self.assertEqual({name: size for name, (size, _) in format.DTYPES.items()}, wanted)
        for name, (size, form) in format.DTYPES.items():
            if form is not None:
                self.assertEqual(struct.calcsize(form), size, name)
                memoryview(bytes(8)).cast(form)

    def test_views_of_other_dtypes(self):
        header = {"i": {"dtype": "I64", "shape": [1, 2], "data_offsets": [0, 16]},
                  "h": {"dtype": "BF16", "shape": [2], "data_offsets": [16, 20]},
                  "e": {"dtype": "F32", "shape": [0, 3], "data_offsets": [20, 20]},
                  "s": {"dtype": "F32", "shape": [], "data_offsets": [20, 24]}}
        content = safetensors.raw(header, struct.pack("<2q4sf", -5, 6, b"abcd", 1.5))
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            tensors = gradfs.TensorFile(file.name).tensors
        self.assertEqual(tensors["i"].tolist(), [[-5, 6]])
        self.assertEqual(bytes(tensors["h"]), b"abcd")
        self.assertEqual((len(tensors["e"]), tensors["s"].tolist()), (0, 1.5))
        self.assertTrue(all(view.readonly for view in tensors.values()))

    def test_a_file_that_is_none(self):
        with tempfile.NamedTemporaryFile() as file:
            with self.assertRaisesRegex(gradfs.FormatError, re.escape(file.name)):
                gradfs.TensorFile(file.name)
        with self.assertRaises(FileNotFoundError):
            gradfs.TensorFile(file.name)


class Arrays(unittest.TestCase):
    def test_numpy_and_torch_types_are_as_long_as_the_files(self):
        import numpy
        import torch

        import gradfs.numpy
        import gradfs.torch
        for name, kind in gradfs.numpy.DTYPES.items():
            self.assertEqual(numpy.dtype(kind).itemsize, format.DTYPES[name][0], name)
        for name, kind in gradfs.torch.DTYPES.items():
            self.assertEqual(torch.empty(0, dtype=kind).element_size(), format.DTYPES[name][0], name)

    def test_every_kind_of_array(self):
        import numpy
        import torch
        values = array.array("f", range(6))
        for value in (values, memoryview(values), values.tobytes(), bytearray(values.tobytes()),
                      memoryview(values).cast("B").cast("f", [2, 3]), numpy.arange(6, dtype=numpy.float32),
                      numpy.arange(6, dtype=numpy.float32).reshape(2, 3), torch.arange(6.0).reshape(2, 3),
                      torch.arange(6.0).requires_grad_(), numpy.arange(12, dtype=numpy.float32)[::2],
                      numpy.arange(6, dtype=numpy.float32).reshape(2, 3, order="A"),
                      numpy.array([[0, 1, 2], [3, 4, 5]], dtype=numpy.float32, order="F"),
                      torch.arange(6.0).reshape(2, 3).t().contiguous().t()):
            view, shape = buffers.as_f32(value, "w", (2, 3))
            wanted = values.tobytes()
            if isinstance(value, numpy.ndarray) and value.strides == (8,):
                wanted = array.array("f", range(0, 12, 2)).tobytes()
            self.assertEqual((bytes(view), shape), (wanted, (2, 3)), repr(value))

    def test_no_copy(self):
        values = array.array("f", range(6))
        view, _ = buffers.as_f32(values, "w", (6,))
        values[3] = 9
        self.assertEqual(struct.unpack_from("f", view, 12), (9.0,))

    def test_scalars_and_nothing(self):
        import numpy
        import torch
        for value, shape, size in ((numpy.float32(2), (), 4), (numpy.zeros((), numpy.float32), (), 4),
                                   (torch.tensor(2.0), (), 4), (array.array("f", [2]), (), 4),
                                   (numpy.zeros((0, 3), numpy.float32), (0, 3), 0), (torch.zeros(0, 3), (0, 3), 0)):
            view, got = buffers.as_f32(value, "w", shape)
            self.assertEqual((len(view), got), (size, shape))

    def test_what_does_not_fit(self):
        import numpy
        import torch
        for value, kind in ((numpy.zeros((3, 2), numpy.float32), ValueError), (array.array("f", [1]), ValueError),
                            (numpy.zeros((1, 2, 3), numpy.float32), ValueError), (bytes(23), ValueError),
                            (numpy.zeros((2, 3)), TypeError), (numpy.zeros((2, 3), numpy.float16), TypeError),
                            (numpy.zeros((2, 3), ">f4"), TypeError), (numpy.zeros((2, 3), numpy.int32), TypeError),
                            ([0.0] * 6, TypeError), (None, TypeError), (torch.zeros(2, 3).half(), TypeError),
                            (torch.zeros(2, 3).double(), TypeError), (torch.eye(2, 3).to_sparse(), TypeError),
                            (torch.zeros(3, 2), ValueError)):
            with self.subTest(repr(value)), self.assertRaisesRegex(kind, "^tensor fc.w[^\n]*$"):
                buffers.as_f32(value, "fc.w", (2, 3))

    def test_writing_many_buffers_in_parts(self):
        pieces = [bytes([k % 251]) * (k % 7) for k in range(3000)]
        real, calls = os.pwritev, []

        def stingy(fd, views, offset):
            """Writes five bytes at most."""
            calls.append(len(views))
            return real(fd, [views[0][:5]], offset)

        for write in (real, stingy):
            with tempfile.TemporaryFile() as file:
                os.pwritev = write
                try:
                    buffers.write_all(file.fileno(), pieces, 3)
                finally:
                    os.pwritev = real
                self.assertEqual(os.pread(file.fileno(), 1 << 20, 0), bytes(3) + b"".join(pieces))
        self.assertLessEqual(max(calls), buffers.IOV_MAX)


class FakeWay:
    """Errors of store and of commit, one pair an attempt; None is none."""
    name, path = "slot", None

    def __init__(self, *attempts):
        self.attempts, self.dropped, self.closed = list(attempts), [], False

    def store(self, step, buffers):
        self.now = self.attempts.pop(0)
        self._fail(self.now[0])

    def commit(self):
        self._fail(self.now[1])

    def _fail(self, number):
        if number is not None:
            raise OSError(number, os.strerror(number))

    def drop(self, refused=False):
        self.dropped.append(refused)

    def close(self):
        self.closed = True


class Outcomes(unittest.TestCase):
    def push(self, *attempts, timeout_s=60.0):
        pusher = pushing.Pusher("/nowhere", "r", "w", "slot")
        self.way = pusher.way = FakeWay(*attempts)
        try:
            return pusher.push(7, [], timeout_s)
        finally:
            self.assertEqual(self.way.attempts, [])

    def test_done(self):
        self.assertEqual(self.push((None, None)), (False, False))
        self.assertEqual(self.way.dropped, [])

    def test_a_step_that_has_counted_is_done(self):
        self.assertEqual(self.push((None, errno.EEXIST)), (True, False))

    def test_refusals(self):
        for number, kind in ((errno.EINVAL, gradfs.InvalidGradient), (errno.EDOM, gradfs.NotFinite),
                             (errno.ERANGE, gradfs.TooStale), (errno.ETIMEDOUT, gradfs.RoundTimedOut),
                             (errno.EDQUOT, gradfs.QuotaExceeded)):
            with self.assertRaises(kind) as raised:
                self.push((None, number))
            error = raised.exception
            self.assertIsInstance(error, gradfs.Refused)
            self.assertIsInstance(error, OSError)
            self.assertEqual((error.errno, error.run, error.worker, error.step), (number, "r", "w", 7))
            self.assertEqual(self.way.dropped, [True])

    def test_an_unknown_outcome_is_pushed_again(self):
        for number in (errno.EIO, errno.EINTR, errno.ENOTCONN, errno.ENOSPC, errno.ECONNABORTED):
            self.assertEqual(self.push((None, number), (None, None)), (False, True))
            self.assertEqual(self.push((None, number), (None, errno.EEXIST)), (True, True))
            self.assertEqual(self.push((None, number), (None, number), (None, None)), (False, True))
            with self.assertRaises(gradfs.NotFinite):
                self.push((None, number), (None, errno.EDOM))

    def test_what_cannot_be_written_has_not_counted(self):
        for number in (errno.ENOENT, errno.EACCES, errno.ENOSPC, errno.EROFS):
            with self.assertRaises(gradfs.PushFailed) as raised:
                self.push((number, None))
            self.assertEqual(raised.exception.errno, number)

    def test_a_mount_that_is_away_may_come_back(self):
        self.assertEqual(self.push((errno.ENOTCONN, None), (errno.EIO, None), (None, None)), (False, True))

    def test_after_an_unknown_outcome_nothing_is_permanent(self):
        self.assertEqual(self.push((None, errno.EIO), (errno.ENOENT, None), (None, errno.EEXIST)), (True, True))

    def test_the_deadline(self):
        with self.assertRaises(gradfs.OutcomeUnknown):
            self.push((None, errno.EIO), timeout_s=0)
        with self.assertRaises(gradfs.PushFailed):
            self.push((errno.EIO, None), timeout_s=0)
        with self.assertRaises(gradfs.OutcomeUnknown):
            self.push((None, errno.EIO), (errno.ENOENT, None), timeout_s=pushing.PAUSE_FIRST_S * 1.5)

    def test_names_of_files(self):
        names = [pushing.file_stem(*key) for key in
                 (("r", "w"), ("a-b", "c"), (".hidden", "w"), ("../..", "/etc"), ("r" * 255, "w" * 255), ("", ""),
                  ("ä" * 100, "w"), ("r", "w\n"))]
        self.assertEqual(len(set(names)), len(names))
        for name in names:
            self.assertNotIn("/", name)
            self.assertFalse(name.startswith("."))
            self.assertLessEqual(len(name), pushing.NAME_MAX)
        longest = f".{'x' * pushing.NAME_MAX}-{2 ** 64}-{2 ** 22}-{10 ** 9}.safetensors"
        self.assertLessEqual(len(longest), 255)


class Packing(unittest.TestCase):
    def test_the_version_is_the_projects(self):
        with open(os.path.join(package.ROOT, "CMakeLists.txt"), encoding="utf-8") as file:
            version = re.search(r"project\(gradfs VERSION ([\d.]+)", file.read()).group(1)
        self.assertEqual(gradfs.__version__, version)

    def test_the_core_imports_the_standard_library_alone(self):
        script = "import sys, gradfs; print(*(m for m in ('numpy', 'torch') if m in sys.modules))"
        done = subprocess.run([sys.executable, "-B", "-S", "-c", script], env=package.environment(),
                              capture_output=True, text=True, timeout=60)
        self.assertEqual((done.returncode, done.stdout.strip(), done.stderr), (0, "", ""))

    def test_a_wheel(self):
        script = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
        with tempfile.TemporaryDirectory() as folder:
            source, out = os.path.join(folder, "source"), os.path.join(folder, "out")
            shutil.copytree(package.PACKAGE, source, ignore=shutil.ignore_patterns("__pycache__"))
            done = subprocess.run([sys.executable, "-B", "-c", script, out], cwd=source, capture_output=True,
                                  text=True, timeout=60)
            self.assertEqual(done.returncode, 0, done.stderr)
            (wheel,) = os.listdir(out)
            self.assertEqual(wheel, f"gradfs-{gradfs.__version__}-py3-none-any.whl")
            with zipfile.ZipFile(os.path.join(out, wheel)) as archive:
                packed = {name for name in archive.namelist() if name.startswith("gradfs/")}
            sources = os.listdir(os.path.join(package.PACKAGE, "gradfs"))
            self.assertEqual(packed, {f"gradfs/{name}" for name in sources if name.endswith(".py")})
            done = subprocess.run([sys.executable, "-B", "-c", "import gradfs; print(gradfs.__file__)"],
                                  env=dict(os.environ, PYTHONPATH=os.path.join(out, wheel)), capture_output=True,
                                  text=True, timeout=60)
            self.assertIn(wheel, done.stdout, done.stderr)


class Refusing(unittest.TestCase):
    """A plain directory stands for the model: a gradient that cannot be one is not written at all."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        for name in ("slots", "gradients"):
            os.mkdir(os.path.join(folder.name, name))
        values = integers([2, 3], 1)
        gradfs.save_model(os.path.join(folder.name, "model.safetensors"), {"w": floats([2, 3], values)})
        self.model = gradfs.Model(folder.name, run="r", worker="w")
        self.addCleanup(self.model.close)

    def test_what_the_model_has_not(self):
        for bad in ({}, {"x": array.array("f", [1])}, {"w": array.array("f", [1])}, {"w": [[1, 2, 3], [4, 5, 6]]}):
            with self.assertRaises(gradfs.InvalidGradient) as raised:
                self.model.push(bad, step=0)
            self.assertEqual((raised.exception.errno, raised.exception.step), (errno.EINVAL, 0))
            self.assertEqual(len(str(raised.exception).splitlines()), 1)
        self.assertEqual(os.listdir(self.model.path("slots")), [])

    def test_no_such_way(self):
        with self.assertRaisesRegex(ValueError, "'slot', 'file', 'rename'"):
            self.model.push({}, step=0, through="mail")

    def test_no_live_model(self):
        with self.assertRaisesRegex(gradfs.Error, "not a live model"):
            self.model.version

    def test_what_is_written(self):
        gradient = floats([2, 3], range(6))
        self.model.push({"w": gradient}, step=3, base_version=2, loss=0.1, weight=64, loss_scale=1024)
        with open(self.model.path("slots", "r-w.safetensors"), "rb") as file:
            written = safetensors.unpack(file.read())
        self.assertEqual(written.metadata, {"run": "r", "worker": "w", "step": "3", "base_version": "2", "loss": "0.1",
                                            "weight": "64", "loss_scale": "1024"})
        self.assertEqual(list(written.tensors["w"].data), list(range(6)))
        self.model.push({"w": gradient}, step=4, loss=math.nan, through="file")
        self.model.push({"w": gradient}, step=4, loss=math.nan, through="rename")
        files = sorted(os.listdir(self.model.path("gradients")))
        self.assertEqual(len(files), 2)
        for name in files:
            written = safetensors.read(self.model.path("gradients", name))
            self.assertEqual(written.metadata, {"run": "r", "worker": "w", "step": "4"})
        self.model.close()
        self.assertEqual(os.listdir(self.model.path("slots")), [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
