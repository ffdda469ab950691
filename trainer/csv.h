// Tables of text as data sets: train.csv and test.csv.
//
// A row is a line of numbers with commas, semicolons or tabs between them; which, the first line says. That
// may name the columns: it does if something in it is not a number. One column is the label, a whole number
// from 0 to 255; the others are features, taken as they are (nan and inf too: the filesystem refuses the
// gradients that come of them). Spaces and quotation marks around a number, blank lines, and \r at the end
// are passed over.
#pragma once

#include <string>

#include "trainer/dataset.h"

namespace gradfs::trainer {

// path: a directory with train.csv and, if it has one, test.csv, with the same columns; or one .csv file.
// Without a file for testing each tenth row is. label: the label's column, by name or by number from 0; "" is
// the one called "label", or else the first. The rows are read once, into a temporary file of numbers without
// a name (below TMPDIR, 4 bytes a number), so that they are not held in memory. kInvalid names the file and
// the line.
Result<Dataset> load_csv(const std::string& path, const std::string& label);

}  // namespace gradfs::trainer
