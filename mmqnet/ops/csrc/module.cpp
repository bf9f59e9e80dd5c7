// Copyright (c) mmqnet developers. All rights reserved.
// The module `_C`: importing it loads the library, which registers the kernels of the operators.

#include <Python.h>
#include <torch/library.h>

#include <string>

#include "kernels.h"

namespace {

std::string instruction_set() { return mmqnet::kernels().name; }

}  // namespace

TORCH_LIBRARY_FRAGMENT(mmqnet, m) {
  m.def("instruction_set() -> str", &instruction_set);
}

PyMODINIT_FUNC PyInit__C(void) {
  static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_C", nullptr, -1, nullptr, nullptr, nullptr, nullptr,
                                   nullptr};
  return PyModule_Create(&definition);
}
