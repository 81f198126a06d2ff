"""Types of arguments on the command line."""

import argparse
import math
import os
import pathlib


def positive(text):
    """An int of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be positive. Received: {text}")
    return number


def factor(text):
    """A finite float of at least 1."""
    number = float(text)
    if not 1 <= number < math.inf:
        raise argparse.ArgumentTypeError(
            f"must be finite, at least 1. Received: {text}"
        )
    return number


def output(text):
    """The path of a file that can be written: better told before hours than after."""
    path = pathlib.Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"is a folder. Received: {text}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(
            f"is in no folder that exists. Received: {text}"
        )
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"cannot be written. Received: {text}")
    return text
