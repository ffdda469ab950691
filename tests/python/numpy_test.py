"""NumPy on a mount: first by hand, then by gradfs.numpy."""
import json
import os
import struct
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import numpy as np
import package  # noqa: F401
from case import ClusterCase
from model import Model, data_of, minus, small_tensors

import gradfs
import gradfs.numpy


def as_arrays(tensors):
    return {name: np.array(tensor.data, np.float32).reshape(tensor.shape) for name, tensor in tensors.items()}


class NumPy(ClusterCase):
    def setUp(self):
        super().setUp()
        self.made = Model(self.cluster)
        self.model = gradfs.Model(self.made.dir, run="r", worker="w")
        self.addCleanup(self.model.close)

    def test_a_memmap_by_hand(self):
        path = self.made.parameters
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        entry = header["fc.weight"]
        weight = np.memmap(path, np.float32, "r", 8 + length + entry["data_offsets"][0], tuple(entry["shape"]))
        np.testing.assert_array_equal(weight, as_arrays(self.made.start)["fc.weight"])
        gradient = small_tensors(seed=4)
        self.made.push(gradient)
        np.testing.assert_array_equal(weight, as_arrays(minus(self.made.start, gradient))["fc.weight"])

    def test_arrays_are_the_model(self):
        arrays = gradfs.numpy.arrays(self.model)
        expected = self.made.start
        for seed in range(5):
            for name, values in as_arrays(expected).items():
                self.assertEqual((arrays[name].dtype, arrays[name].shape), (np.float32, values.shape))
                np.testing.assert_array_equal(arrays[name], values)
            self.model.push(as_arrays(small_tensors(seed)))
            expected = minus(expected, small_tensors(seed))
        self.assertEqual(self.made.bits(), data_of(expected))

    def test_arrays_are_read_only(self):
        for array in gradfs.numpy.arrays(self.model).values():
            self.assertFalse(array.flags.writeable)
            with self.assertRaises(ValueError):
                array[...] = 1
            with self.assertRaises(ValueError):
                array.setflags(write=True)

    def test_arrays_of_any_file(self):
        self.model.push(as_arrays(small_tensors(3)))
        copy = self.cluster.local("copy.safetensors")
        gradfs.save_model(copy, gradfs.numpy.arrays(self.model))
        for name, array in gradfs.numpy.arrays(gradfs.TensorFile(copy)).items():
            self.assertEqual(array.tobytes(), self.made.bits()[name])

    def test_arrays_that_lie_strangely(self):
        gradient = as_arrays(small_tensors(3))
        strange = {"fc.weight": np.asfortranarray(gradient["fc.weight"]), "scale": gradient["scale"].reshape(()),
                   "fc.bias": np.repeat(gradient["fc.bias"], 2)[::2], "head": gradient["head"][:, ::-1][:, ::-1]}
        self.model.push(strange)
        self.assertEqual(self.made.bits(), data_of(minus(self.made.start, small_tensors(3))))

    def test_a_step_computed_from_the_live_arrays(self):
        """A gradient that is the model itself, at rate 1: all zeros. The parameters are read while they are written."""
        self.model.push(gradfs.numpy.arrays(self.model))
        for array in gradfs.numpy.arrays(self.model).values():
            np.testing.assert_array_equal(array, np.zeros_like(array))

    def test_an_array_of_another_type(self):
        for kind in (np.float64, np.float16, np.int32):
            with self.assertRaisesRegex(gradfs.InvalidGradient, "convert them to F32"):
                self.model.push({"fc.bias": np.zeros(31, kind)}, step=0)
        self.assertEqual(self.model.version, 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
