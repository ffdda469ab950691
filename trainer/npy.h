// NumPy's .npy files as data sets: x_train.npy and y_train.npy, and x_test.npy and y_test.npy.
//
//   file    = "\x93NUMPY" major minor length header data; major 1: length is u16, 2 and 3: u32, little-endian
//   header  = a Python dictionary with 'descr', 'fortran_order' and 'shape', then spaces and a newline
//
// x has a row for each sample, [rows, ...], of f4, f8, b1 or whole numbers: bytes (u1) are pixels and are
// divided by 255, the others are taken as they are. y has a label for each, [rows] or [rows, 1]: whole
// numbers from 0 to 255 of any of these types. In C order, little-endian.
#pragma once

#include <string>

#include "trainer/dataset.h"

namespace gradfs::trainer {

// Without files for testing each tenth row is. Rows stay in their file, which must not change: what is cut
// off later is an error of gather(). kInvalid, with the file's name, for what is cut off, or no such file, or
// has other sizes than its companion.
Result<Dataset> load_npy(const std::string& directory);

}  // namespace gradfs::trainer
