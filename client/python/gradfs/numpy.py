"""Models as NumPy arrays."""
import numpy

# Of what NumPy has no type for (BF16, F8) there is none here.
DTYPES = {"BOOL": numpy.bool_, "U8": numpy.uint8, "I8": numpy.int8, "I16": numpy.int16, "U16": numpy.uint16,
          "F16": numpy.float16, "I32": numpy.int32, "U32": numpy.uint32, "F32": numpy.float32, "F64": numpy.float64,
          "I64": numpy.int64, "U64": numpy.uint64}


def arrays(source):
    """name -> array over the memory of a gradfs.Model or a gradfs.TensorFile: read-only, live, without a copy.
    Arrays are pushed as they are: model.push({"w": array})."""
    file = getattr(source, "file", source)
    return {tensor.name: numpy.frombuffer(file.map, DTYPES[tensor.dtype], tensor.count,
                                          file.layout.data_start + tensor.begin).reshape(tensor.shape)
            for tensor in file.layout.tensors.values()}
