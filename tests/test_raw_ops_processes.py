"""The raw ops in processes of their own: other threads, and what may end them."""

import hashlib
import itertools
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from problems import LARGE, PASSES
from test_raw_ops import (
    NOTHING,
    PLAIN,
    attributes,
    backprop_input,
    core,
    explicit,
    ops,
    run,
    sizes,
)


def hash_of_results():
    """One hash over the bits of every pass and algorithm."""
    bits = hashlib.sha256()
    # Products of 1e-20 are subnormal, which TensorFlow's threads flush to zero: whether
    # they do is a matter of the kernel, so a third of the cases will do.
    cases = list(LARGE.values())
    scaled = [*((case, 1) for case in cases), *((case, 1e-20) for case in cases[::3])]
    for (case, scale), pass_ in itertools.product(scaled, PASSES):
        a, b = (v * np.float32(scale) for v in case.operands(pass_))
        for row in case.problem(core, pass_).explain():
            if row["refusal"] is None:
                result = run(case, pass_, a, b, algorithm=row["algorithm"])
                bits.update(result.numpy().tobytes())
                if pass_ == "forward":
                    given = attributes(case, algorithm=row["algorithm"])
                    given |= {"activation": "relu"}
                    bias = [case.bias() * np.float32(scale)]
                    result = ops.kconv_conv(a, b, bias, [], [], **given)
                    bits.update(result.numpy().tobytes())
    return bits.hexdigest()


IN_A_FRESH_PROCESS = f"""
import sys, tensorflow as tf
sys.path[:0] = {sys.path}
tf.config.threading.set_intra_op_parallelism_threads(int(sys.argv[1]))
import test_raw_ops_processes as own
print(own.hash_of_results(), flush=True)
print(own.number_refused())
"""


@pytest.fixture(scope="module")
def told():
    """What processes of 1 and 3 threads print, and how they end."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", IN_A_FRESH_PROCESS, str(threads)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for threads in (1, 3)
    ]
    return [(p.communicate()[0].split(), p.returncode) for p in started]


def test_same_bits_for_any_number_of_intra_op_threads(told):
    here = hash_of_results()
    assert [words[:1] for words, _ in told] == [[here]] * 2


def results_without_elements():
    """Shapes of no element whose other sizes overflow when they are multiplied."""
    one, empty = tf.zeros((1, 1, 1, 1)), tf.zeros((2**40, 1, 0, 1))
    padded = {**PLAIN, **explicit(2**40, 0, 0, 0)}
    strided = {**PLAIN, "strides": [2**40, 1]}
    yield lambda: ops.kconv_conv(empty, one, *NOTHING, **padded)
    yield lambda: backprop_input(sizes((2**40, 2**40, 0, 1)), one, empty, **strided)
    yield lambda: ops.kconv_conv_backprop_filter(
        empty, sizes((2**40, 1, 1, 2**40)), tf.zeros((2**40, 1, 0, 2**40)), **padded
    )


def number_refused():
    """How many of `results_without_elements` are errors."""
    refused = 0
    for call in results_without_elements():
        try:
            call()
        except tf.errors.InvalidArgumentError as error:
            assert "Received: " in str(error)
            refused += 1
    return refused


def test_sizes_that_overflow_beside_an_empty_axis(told):
    # TensorFlow itself ends the process where it is asked for such a shape.
    assert [(words[1:], code) for words, code in told] == [(["3"], 0)] * 2
