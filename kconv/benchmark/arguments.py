"""Arguments that the subjects of `kconv bench` share."""

import argparse

from kconv.arguments import output, positive
from kconv.benchmark.problems import DTYPES, LAYOUTS, PASSES

# Names of what `add_common` adds, as `argparse` keeps them.
COMMON = (
    *("batch", "passes", "dtype", "layout", "threads", "repeats", "seconds"),
    *("csv", "json", "plot"),
)


def add_common(parser, *, batches=(1, 8), passes=PASSES, dtypes=DTYPES, seconds=5.0):
    """Adds the arguments that every subject has.

    Args:
        parser: An `argparse.ArgumentParser`.
        batches: Default batch sizes.
        passes: Names of the passes of the subject, all of them the default; None if
            there is nothing to choose.
        dtypes: Names of the types that the subject can have, first the default.
        seconds: Default time for a problem.
    """
    add = parser.add_argument
    add(
        "--batch",
        nargs="+",
        type=positive,
        default=list(batches),
        metavar="N",
        help="images",
    )
    if passes:
        add(
            "--passes",
            nargs="+",
            choices=passes,
            default=list(passes),
            help="which passes",
        )
    add("--dtype", choices=dtypes, default=dtypes[0], help="of all operands")
    add(
        "--layout",
        nargs="+",
        choices=LAYOUTS,
        default=["channels_last"],
        help="where the channels of images are",
    )
    add("--threads", type=positive, default=2, help="within an operation")
    add("--repeats", type=positive, default=7, help="turns of each candidate")
    add(
        "--seconds",
        type=float,
        default=seconds,
        help="for a problem, after three turns of each candidate",
    )
    for kind, verb in (("csv", "write"), ("json", "write"), ("plot", "draw")):
        add(
            f"--{kind}",
            type=output,
            metavar="FILE",
            # A default that is None would be told.
            default=argparse.SUPPRESS,
            help=f"{verb} the results there too",
        )


def common(options):
    """The values of what `add_common` added.

    Args:
        options: What the parser returned.

    Returns:
        A dictionary with the names `COMMON` as keys; None for a file that is not
        wanted.
    """
    return {name: getattr(options, name, None) for name in COMMON}
