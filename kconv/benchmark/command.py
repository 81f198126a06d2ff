"""The arguments of `kconv bench`, and the calls that they make."""

import argparse

from kconv.arguments import positive

# Modules that need TensorFlow or an extra are imported by what runs.


def add(commands):
    """Adds `kconv bench` to the commands of a parser."""
    bench = commands.add_parser("bench", help="time kconv against stock TensorFlow")
    subjects = bench.add_subparsers(required=True, metavar="SUBJECT")
    _add_layers(subjects)


def _add_layers(subjects):
    layers = subjects.add_parser(
        "layers",
        help="single convolutions",
        description=(
            "Times single convolutions of kconv in turns with those of stock"
            " TensorFlow, with oneDNN and without, each called eagerly and as a"
            " tf.function; the best of each counts. Layers in groups are also timed"
            " as Keras runs stock's, compiled by XLA, and beside the dense layer of"
            " the same width. KCONV_MAX_ISA and ONEDNN_MAX_CPU_ISA are heeded."
        ),
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    layers.set_defaults(command=_run_layers)
    add = layers.add_argument
    add(
        "--layers",
        choices=("3x3", "1x1", "depthwise", "grouped", "strided", "1d", "3d", "all"),
        default="all",
        help="which",
    )
    add("--batch", nargs="+", type=positive, default=[1, 8], metavar="N")
    add(
        "--passes",
        nargs="+",
        choices=("forward", "input_gradient", "filter_gradient"),
        default=["forward", "input_gradient", "filter_gradient"],
        help="which",
    )
    add(
        "--algorithm",
        nargs="+",
        metavar="NAME",
        default=argparse.SUPPRESS,
        help="auto, auto:strict, names of algorithms or of families of them"
        " (default: auto and each algorithm)",
    )
    add(
        "--dtype",
        choices=("float32", "float64", "bfloat16", "float16"),
        default="float32",
        help="of all operands",
    )
    add(
        "--modes",
        nargs="+",
        choices=("graph", "eager"),
        default=["graph", "eager"],
        help="how both are called: as a tf.function, eagerly",
    )
    add(
        "--engines",
        nargs="+",
        choices=("oneDNN", "Eigen"),
        default=["oneDNN", "Eigen"],
        help="what stock's kernels may use",
    )
    add("--threads", type=positive, default=2, help="within an operation")
    add("--repeats", type=positive, default=7, help="turns of each candidate")
    add(
        "--seconds",
        type=float,
        default=5.0,
        help="for a problem, after three turns of each candidate",
    )
    add(
        "--torch",
        action="store_true",
        help="time PyTorch's kernels as well, in a process of their own",
    )
    add(
        "--torch-python",
        metavar="FILE",
        default=argparse.SUPPRESS,
        help="interpreter that has PyTorch, which then is timed (default:"
        " KCONV_TORCH_PYTHON, or the one that runs kconv)",
    )
    for kind in ("csv", "json", "plot"):
        add(f"--{kind}", metavar="FILE", help="write the results there too")


def _run_layers(options):
    from kconv.benchmark import layers

    torch_python = getattr(options, "torch_python", None)
    layers.run(
        layers=options.layers,
        batches=options.batch,
        passes=options.passes,
        algorithms=getattr(options, "algorithm", None),
        dtype=options.dtype,
        modes=options.modes,
        engines=options.engines,
        threads=options.threads,
        repeats=options.repeats,
        seconds=options.seconds,
        torch=options.torch or torch_python is not None,
        torch_python=torch_python,
        csv=options.csv,
        json=options.json,
        plot=options.plot,
    )
    return 0
