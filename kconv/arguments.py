"""Types of arguments on the command line."""

import argparse


def positive(text):
    """An int of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be positive. Received: {text}")
    return number
