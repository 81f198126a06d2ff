"""The arguments of `kconv bench auto`, and the call that they make."""

import argparse

from kconv.arguments import factor, output, positive
from kconv.benchmark.drawn import MOST_DRAWN
from kconv.benchmark.problems import DTYPES, PASSES


def add(subjects):
    """Adds the subject to those of `kconv bench`."""
    auto = subjects.add_parser(
        "auto",
        help='whether algorithm="auto" chooses well, on random convolutions',
        description=(
            'Draws convolutions of all kinds at random, and times what "auto" takes in'
            " turns with every other candidate, TensorFlow's own kernel among them, all"
            " in this process: so TF_ENABLE_ONEDNN_OPTS, KCONV_MAX_ISA and other"
            " settings are heeded. A choice is right that takes at most a tenth longer"
            " than the best; where that is in doubt, both are timed again."
        ),
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    auto.set_defaults(command=_run)
    add_argument = auto.add_argument
    add_argument("--seed", type=int, default=0, help="of the convolutions")
    add_argument("--count", type=positive, default=200, help="of the convolutions")
    add_argument("--passes", nargs="+", choices=PASSES, default=list(PASSES))
    add_argument(
        "--dtype",
        nargs="+",
        choices=DTYPES,
        default=argparse.SUPPRESS,
        help="types to draw from (default: mostly float32)",
    )
    add_argument("--threads", type=positive, default=2, help="within an operation")
    add_argument(
        "--close",
        type=factor,
        metavar="FACTOR",
        default=argparse.SUPPRESS,
        help="only convolutions whose two best estimates are within this factor, of the"
        f" first {MOST_DRAWN} drawn: those are chosen for with most doubt",
    )
    for kind in ("csv", "json"):
        add_argument(
            f"--{kind}",
            type=output,
            metavar="FILE",
            default=argparse.SUPPRESS,
            help="write the verdicts there too",
        )


def _run(options):
    from kconv.benchmark import auto

    auto.run(
        seed=options.seed,
        count=options.count,
        passes=options.passes,
        dtypes=getattr(options, "dtype", None),
        threads=options.threads,
        close=getattr(options, "close", None),
        csv=getattr(options, "csv", None),
        json=getattr(options, "json", None),
    )
    return 0
