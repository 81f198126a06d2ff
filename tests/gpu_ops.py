"""kconv's ops by their GPU kernels, where `cuda_host.cc` stands in for the GPU.

`test_gpu_ops.py` runs this file in a process of its own, for it registers kernels.
"""

import ctypes
import dataclasses

import cuda_twin
import keras
import numpy as np
import pytest
import tensorflow as tf

import kconv
from kconv import builtin, choices, deformation, dispatch, gpu, native, runtime
from kconv.epilogue import Epilogue
from kconv.operands import Operands

CALLS = {
    "plain": ((2, 9, 8, 6), (3, 3, 6, 8), {"padding": "same"}),
    "strided": ((2, 9, 8, 6), (3, 2, 6, 8), {"strides": (2, 1)}),
    "dilated": ((1, 12, 11, 4), (3, 3, 4, 6), {"dilation_rate": 2}),
    "one_dimension": ((2, 30, 6), (5, 6, 4), {"padding": ((4, 0),)}),
    "three_dimensions": ((1, 5, 6, 7, 3), (2, 3, 3, 3, 4), {}),
    "depthwise": ((2, 9, 8, 6), (3, 3, 1, 6), {"padding": "same"}),
}


@pytest.fixture(scope="session", autouse=True)
def twin():
    """The library, with kernels for the CPU ahead of kconv's own."""
    path = cuda_twin.build()
    native.ops()
    library = native._parts.library
    assert library.kconv_use_cuda(b"/nowhere.so", b"CPU")
    assert library.kconv_use_cuda(str(path).encode(), b"CPU") is None
    return cuda_twin.declared(path)


@pytest.fixture
def used(twin, monkeypatch):
    """Lets kconv see the twin as the GPU library in use, and TensorFlow a GPU."""
    monkeypatch.setattr(native, "_parts", dataclasses.replace(native._parts, gpu=twin))
    monkeypatch.setattr(runtime, "has_gpu", lambda: True)
    monkeypatch.setattr(runtime, "gpu_name", lambda: "twin")
    forget()
    yield twin
    native.set_choices({})
    forget()


def forget():
    for cached in (dispatch.candidates, dispatch.stock_takes, dispatch.refusal):
        cached.cache_clear()


def random(shape, seed=0):
    values = np.random.default_rng(seed).standard_normal(shape)
    return tf.constant(values, "float32")


def results(x, kernel, bias=None, **options):
    """The output, and the gradients of a sum of it."""
    with tf.GradientTape() as tape:
        tape.watch([x, kernel])
        y = kconv.ops.conv(x, kernel, bias=bias, **options)
        total = tf.reduce_sum(y * y)
    return [y, *tape.gradient(total, [x, kernel])]


def agree(found, expected, bound=1e-5):
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        largest = float(tf.reduce_max(tf.abs(other)))
        assert float(tf.reduce_max(tf.abs(one - other))) < bound * largest


@pytest.mark.parametrize("name", CALLS)
def test_all_passes(name, twin):
    input_shape, kernel_shape, options = CALLS[name]
    x, kernel = random(input_shape), random(kernel_shape, 1)
    bias = random(kernel_shape[-1:], 2)
    before = twin.kconv_host_runs()
    found = results(x, kernel, bias, activation="relu", algorithm="direct", **options)
    assert twin.kconv_host_runs() == before + 3
    agree(
        found,
        results(x, kernel, bias, activation="relu", algorithm="builtin", **options),
    )


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_types(dtype, twin):
    x, kernel = random((2, 9, 8, 6)), random((3, 3, 1, 6), 1)
    before = twin.kconv_host_runs()
    y = kconv.ops.conv(tf.cast(x, dtype), tf.cast(kernel, dtype), algorithm="direct")
    assert twin.kconv_host_runs() == before + 1
    assert y.dtype == dtype
    expected = kconv.ops.conv(x, kernel, algorithm="builtin")
    agree([tf.cast(y, "float32")], [expected], 2e-2)


def test_empty(twin):
    x, kernel = tf.zeros((0, 9, 8, 6)), random((3, 3, 6, 8))
    y, by_x, by_kernel = results(x, kernel, algorithm="direct")
    assert y.shape == (0, 7, 6, 8)
    assert by_x.shape == x.shape
    assert by_kernel.shape == kernel.shape
    assert not np.any(by_kernel)


def test_transposed_and_in_a_graph(twin):
    layer = kconv.layers.Conv2DTranspose(5, 3, strides=2, algorithm="direct")
    x = random((2, 5, 4, 3))
    y = layer(x)
    before = twin.kconv_host_runs()
    agree([tf.function(layer)(x)], [y])
    assert twin.kconv_host_runs() == before + 1
    stock = keras.layers.Conv2DTranspose(5, 3, strides=2)
    stock.build(x.shape)
    stock.set_weights(layer.get_weights())
    agree([y], [stock(x)])


@pytest.mark.parametrize("mask", [False, True])
def test_deformable(mask, used):
    x, kernel = random((2, 7, 6, 4)), random((3, 3, 2, 6), 1)
    offsets, bias = random((2, 4, 3, 36), 2), random((6,), 3)
    masks = tf.sigmoid(random((2, 4, 3, 18), 4)) if mask else None
    operands = [x, kernel, offsets, *([masks] if mask else []), bias]
    options = {"strides": 2, "padding": "same", "offset_groups": 2}

    def passes(function):
        with tf.GradientTape() as tape:
            tape.watch(operands)
            y = function()
            total = tf.reduce_sum(y * y)
        return [y, *tape.gradient(total, operands)]

    before = used.kconv_host_runs()
    found = passes(
        lambda: kconv.ops.deform_conv(x, kernel, offsets, masks, bias=bias, **options)
    )
    assert used.kconv_host_runs() == before + 3
    spec = deformation.deform_spec(x.shape, kernel.shape, **options)
    stock = passes(
        lambda: builtin.deform_conv(
            spec, x, kernel, offsets, masks, Epilogue(bias, "linear")
        )
    )
    agree(found, stock, 2e-5)


def test_an_algorithm_that_gpus_lack():
    x, kernel = random((1, 20, 20, 2)), random((9, 9, 2, 2))
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        kconv.ops.conv(x, kernel, algorithm="fft")
    assert "no such algorithm for GPUs. Received: algorithm=fft" in str(error.value)


def test_refusal_of_the_kernel():
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        native.ops().kconv_conv(
            input=random((1, 9, 9, 4)),
            filter=random((3, 3, 4, 4)),
            bias=[],
            prepared=[],
            source=[],
            strides=[1, 1],
            dilations=[1, 1],
            padding="VALID",
            algorithm="depthwise",
        )
    assert "one filter a channel" in str(error.value)
    assert "Received: algorithm=depthwise" in str(error.value)


def test_strict_and_limited(twin):
    x, kernel = random((2, 9, 8, 6)), random((3, 3, 1, 6))
    exact = results(x, kernel, algorithm="builtin")
    attributes = {"strides": [1, 1], "dilations": [1, 1], "padding": "VALID"}
    arguments = {"input": x, "filter_sizes": [3, 3, 1, 6], "groups": 6}
    for limit in (None, 0):
        kconv.set_workspace_limit(limit)
        native.reset_workspace_peak()
        found = native.ops().kconv_conv_backprop_filter(
            out_backprop=2 * exact[0],
            algorithm="auto:strict",
            **arguments,
            **attributes,
        )
        agree([found], [exact[2]])
        assert (native.workspace_peak() > 0) == (limit is None)
    kconv.set_workspace_limit(None)


def test_auto_is_stock_until_something_is_measured(used):
    x, kernel = random((2, 9, 8, 6)), random((3, 3, 1, 6))
    before = used.kconv_host_runs()
    expected = results(x, kernel)
    assert used.kconv_host_runs() == before
    told = kconv.ops.explain(x, kernel)
    assert told.chosen == "builtin"
    assert "nothing is estimated" in told.reason
    assert [row.algorithm for row in told.candidates] == [
        *kconv.cuda.algorithms(used),
        "builtin",
    ]
    spec_key = dispatch.problem(
        "filter_gradient",
        kconv.spec.conv_spec((2, 9, 8, 6), (3, 3, 1, 6), 1, "valid", None, 1, "auto"),
        *((2, 9, 8, 6), (3, 3, 1, 6), "float32", "gpu"),
    ).key
    assert spec_key.endswith("device=gpu")
    native.set_choices({(0, spec_key): "direct"})
    agree(results(x, kernel), expected)
    assert used.kconv_host_runs() == before + 1
    # An unknown batch: decided when it runs.
    signature = [tf.TensorSpec((None, 9, 8, 6)), tf.TensorSpec((3, 3, 1, 6))]
    graph = tf.function(results, input_signature=signature)
    agree(graph(x, kernel), expected)
    assert used.kconv_host_runs() == before + 2
    graph(x[:1], kernel)
    assert used.kconv_host_runs() == before + 2


def key_of(pass_, x, kernel, **options):
    """The key that a choice for a call of `conv` on a GPU has."""
    shapes = tuple(x.shape), tuple(kernel.shape)
    options = {"strides": 1, "padding": "valid", "dilation_rate": 1, **options}
    spec = kconv.spec.conv_spec(*shapes, data_format=None, algorithm="auto", **options)
    return dispatch.problem(pass_, spec, *shapes, "float32", "gpu").key


def test_what_was_measured_and_may_not_run_leaves_stock(used):
    x, kernel = random((2, 9, 8, 8)), random((3, 3, 8, 8), 1)
    unknown = [tf.TensorSpec((None, 9, 8, 8)), tf.TensorSpec((3, 3, 8, 8))]
    native.set_choices({(0, key_of("forward", x, kernel)): "winograd:f4"})

    def runs():
        """How often kconv's kernels run, of a known batch and of an unknown one."""
        forget()
        before = used.kconv_host_runs()
        kconv.ops.conv(x, kernel)
        known = used.kconv_host_runs() - before
        tf.function(lambda *given: kconv.ops.conv(*given), input_signature=unknown)(
            x, kernel
        )
        return known, used.kconv_host_runs() - before - known

    assert runs() == (1, 1)
    kconv.set_workspace_limit(1)
    try:
        assert runs() == (0, 0)
    finally:
        kconv.set_workspace_limit(None)
    kconv.set_accuracy("strict")
    try:
        assert runs() == (0, 0)
    finally:
        kconv.set_accuracy("fast")


def test_tuned_choices_are_of_the_gpu(used, monkeypatch, tmp_path):
    monkeypatch.setenv("KCONV_CHOICES", str(tmp_path / "choices.json"))
    model = keras.Sequential([keras.Input((9, 9, 4)), kconv.layers.Conv2D(4, 3)])
    report = kconv.tune(model, progress=False, seconds=20)
    assert {row.pass_ for row in report.rows} == set(dispatch.PASSES)
    for row in report.rows:
        assert row.key.endswith("device=gpu")
        assert set(row.seconds) >= {"direct", "builtin"}
        assert row.before == "builtin"
    (section,) = choices.read()[0]
    assert section["threads"] == 0
    assert section["machine"]["gpu"] == "twin"
    assert len(choices.load()) == 3
    monkeypatch.setattr(runtime, "has_gpu", lambda: False)
    with pytest.warns(UserWarning, match="other processors"):
        assert choices.load() == {}


def test_forced_algorithms(used):
    x, kernel = random((2, 9, 8, 6)), random((3, 3, 6, 6))
    before = used.kconv_host_runs()
    y = kconv.ops.conv(x, kernel, algorithm="direct")
    assert used.kconv_host_runs() == before + 1
    agree([y], [kconv.ops.conv(x, kernel, algorithm="builtin")])
    told = kconv.ops.explain(x, kernel, algorithm="direct")
    assert told.chosen == "direct"
    large = (1, 20, 20, 2), (9, 9, 2, 2)
    assert "CPU takes it only" in kconv.ops.explain(*large, algorithm="fft").reason
    # Neither the CPU nor the GPU has one that takes it.
    with pytest.raises(ValueError, match="Received: algorithm='depthwise'"):
        kconv.ops.conv(x, kernel, algorithm="depthwise")
    assert gpu.is_used()
    assert kconv.ops.prepare_filter(random((3, 3, 64, 64))).prepared is None


@pytest.mark.parametrize("pass_", dispatch.PASSES)
@pytest.mark.parametrize("case", ["plain", "one_dimension", "depthwise"])
def test_stock_kernels_of_channels_first(case, pass_, used):
    # XLA has them on the CPU too.
    input_shape, kernel_shape, options = CALLS[case]
    channels = input_shape[-1]
    groups = channels // kernel_shape[-2]
    spec = kconv.spec.conv_spec(
        input_shape, kernel_shape, 1, options["padding"], None, 1, "builtin"
    )
    first = dataclasses.replace(spec, data_format="channels_first")
    x, kernel = random(input_shape), random(kernel_shape, 1)
    dy = random(spec.output_shape(input_shape, kernel_shape), 2)
    assert spec.groups == groups

    def turned(tensor, back=False):
        order = (
            (0, *range(2, spec.dims + 2), 1)
            if back
            else (0, spec.dims + 1, *range(1, spec.dims + 1))
        )
        return tf.transpose(tensor, order)

    expected = builtin.run(pass_, spec, Operands(x, kernel, dy))
    found = tf.function(builtin.run, jit_compile=True)(
        pass_, first, Operands(turned(x), kernel, turned(dy))
    )
    agree([found if pass_ == "filter_gradient" else turned(found, True)], [expected])


def test_loading_is_for_those_who_ask(monkeypatch, twin):
    functions = native._parts.library
    assert native._gpu_library(functions) is None
    monkeypatch.setenv("KCONV_GPU", "1")
    status = kconv.cuda.Status(why_missing="There is none.")
    monkeypatch.setattr(native.cuda, "find", lambda version: status)
    with pytest.warns(UserWarning, match="There is none. They run on the CPU only"):
        assert native._gpu_library(functions) is None
    status = kconv.cuda.Status(library=twin)
    told = []

    class Functions:
        @staticmethod
        def kconv_use_cuda(path, device):
            told.append((path, device))
            return answer

    answer = None
    assert native._gpu_library(Functions) is twin
    assert told[0][1] == b"GPU"
    answer = b"Broken."
    with pytest.warns(UserWarning, match=r"_cuda\.so cannot be used: Broken\. They"):
        assert native._gpu_library(Functions) is None
    assert ctypes.CDLL
