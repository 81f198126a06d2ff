"""The arguments of `kconv bench deformable`, and the call that they make."""

import argparse

from kconv.arguments import output, positive
from kconv.benchmark import references
from kconv.benchmark.deformable_problem import PASSES
from kconv.benchmark.problems import DTYPES


def add(subjects):
    """Adds the subject to those of `kconv bench`."""
    deformable = subjects.add_parser(
        "deformable",
        help="deformable convolutions",
        description=(
            "Times modulated deformable convolutions of 3x3 taps, with offsets of about"
            " a pixel, in turns with the same in TensorFlow's own ops (tf.gather), with"
            " the plain convolution of the same size by direct and by auto, each in a"
            " tf.function, and with torchvision's where it is installed. A training"
            " step is the forward pass and the gradients of all operands."
        ),
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    deformable.set_defaults(command=_run)
    add_argument = deformable.add_argument
    add_argument("--batch", type=positive, default=2, metavar="N", help="images")
    add_argument("--passes", nargs="+", choices=PASSES, default=list(PASSES))
    add_argument("--dtype", choices=DTYPES, default=DTYPES[0], help="of all operands")
    add_argument("--threads", type=positive, default=2, help="within an operation")
    add_argument("--repeats", type=positive, default=7, help="turns of each candidate")
    add_argument(
        "--seconds",
        type=float,
        default=5.0,
        help="for a problem, after three turns of each candidate",
    )
    add_argument(
        "--references",
        nargs="*",
        choices=tuple(references.DEFORMABLE),
        default=argparse.SUPPRESS,
        help="other libraries to time, which then must be there; none without a name"
        " (default: those that are installed)",
    )
    add_argument(
        "--references-python",
        nargs="+",
        metavar="FILE",
        default=[],
        help="interpreters that have them, before those that"
        f" {references.VARIABLE} names and the one that runs kconv",
    )
    for kind in ("csv", "json"):
        add_argument(
            f"--{kind}",
            type=output,
            metavar="FILE",
            default=argparse.SUPPRESS,
            help="write the results there too",
        )


def _run(options):
    from kconv.benchmark import deformable

    deformable.run(
        batch=options.batch,
        passes=options.passes,
        dtype=options.dtype,
        threads=options.threads,
        repeats=options.repeats,
        seconds=options.seconds,
        wanted=getattr(options, "references", None),
        pythons=options.references_python,
        csv=getattr(options, "csv", None),
        json=getattr(options, "json", None),
    )
    return 0
