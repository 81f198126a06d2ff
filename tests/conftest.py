"""What all tests share."""

import os

import pytest

# TensorFlow's greetings hide what a failing test prints.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# What this machine was tuned to must not sway them.
os.environ["KCONV_CHOICES"] = "off"


def pytest_configure(config):
    """Registers markers; pyproject.toml leaves out slow tests by default."""
    config.addinivalue_line("markers", "slow: takes minutes; run with `-m slow`")
    # Keras's own tests bear it.
    config.addinivalue_line("markers", "requires_trainable_backend: all are, here")


@pytest.fixture
def estimates(monkeypatch):
    """Replaces all estimates by (kconv's, stock's), given in seconds by batch."""
    import tensorflow as tf

    from kconv import dispatch
    from kconv.operands import sizes_of

    def replace(table):
        def candidates(pass_, spec, input_shape, kernel_shape, dtype, terms):
            ours, stock = table[pass_](input_shape[0])
            return (
                dispatch.Candidate("gemm", None, ours, 0),
                dispatch.Candidate("builtin", None, stock),
            )

        def prefers_stock(pass_, spec, operands):
            batch = sizes_of(operands.input)[0]
            times = (table[pass_](n) for n in range(1, 100))
            faster = [False, *(stock < ours for ours, stock in times)]
            return tf.gather(faster, batch)

        monkeypatch.setattr(dispatch, "candidates", candidates)
        monkeypatch.setattr(dispatch, "_prefers_stock", prefers_stock)
        dispatch.stock_takes.cache_clear()

    yield replace
    dispatch.stock_takes.cache_clear()
