"""Keras's own tests of these layers, with kconv's in the place of Keras's."""

import importlib.util
import types
from unittest import mock

import pytest

import kconv

FILES = (
    "conv_test",
    "conv_transpose_test",
    "depthwise_conv_test",
    "separable_conv_test",
)

# Tests that are left out, and why.
LEFT_OUT = {
    (
        "conv_test",
        "test_bad_init_args",
    ): "demands that strides with dilation be refused",
    (
        "conv_transpose_test",
        "test_bad_init_args",
    ): "demands that strides with dilation be refused",
}

OURS = {name: getattr(kconv.layers, name) for name in kconv.layers.__all__}


def _classes(file):
    """The test classes of a file of Keras's, made with kconv's layers."""
    spec = importlib.util.find_spec(f"keras.src.layers.convolutional.{file}")
    module = importlib.util.module_from_spec(spec)
    stock = importlib.import_module("keras.src.layers")
    # The parameters of the tests are layers of this module.
    with mock.patch.multiple(stock, create=True, **OURS):
        spec.loader.exec_module(module)
    module.layers = types.SimpleNamespace(**{**vars(stock), **OURS})
    for name, value in vars(module).items():
        if isinstance(value, type) and value.__module__ == module.__name__:
            yield name, value


for _file in FILES:
    for _name, _class in _classes(_file):
        for _test in [name for name in dir(_class) if name.startswith("test_")]:
            if (_file, _test) in LEFT_OUT:
                _reason = LEFT_OUT[_file, _test]
                setattr(
                    _class, _test, pytest.mark.skip(_reason)(getattr(_class, _test))
                )
        globals()[_name] = _class
