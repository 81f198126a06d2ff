"""What all tests share."""

import os

# TensorFlow's greetings hide what a failing test prints.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def pytest_configure(config):
    """Registers markers; pyproject.toml leaves out slow tests by default."""
    config.addinivalue_line("markers", "slow: takes minutes; run with `-m slow`")
