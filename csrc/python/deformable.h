// Deformable convolution on NumPy arrays.

#ifndef KCONV_PYTHON_DEFORMABLE_H_
#define KCONV_PYTHON_DEFORMABLE_H_

#include <pybind11/pybind11.h>

namespace kconv {

// Adds the function `deform_conv` to the module.
void DefineDeform(pybind11::module_& module);

}  // namespace kconv

#endif  // KCONV_PYTHON_DEFORMABLE_H_
