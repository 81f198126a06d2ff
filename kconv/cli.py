"""The command line: `kconv demo | bench | profile | info`. Parses arguments only."""

import argparse
import sys

# Modules that need an extra are imported by the command that needs them.


def main(arguments=None):
    """Runs a command.

    Args:
        arguments: List of strings; `sys.argv[1:]` by default.

    Returns:
        The exit status: 0 if all went well, 1 if a comparison or the command failed.
    """
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except ModuleNotFoundError as error:
        missing = f"{error.name} is missing: pip install 'kconv[demo,bench]'"
        print(f"kconv: {missing}", file=sys.stderr)
    except (OSError, RuntimeError, ValueError) as error:
        print(f"kconv: {error}", file=sys.stderr)
    return 1


def _demo(options):
    from kconv import demo

    agreed = demo.run(
        weights=options.weights,
        images=options.images,
        output=options.output,
        epochs=options.epochs,
        seed=options.seed,
    )
    return 0 if agreed else 1


def _bench_layers(options):
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


def _profile(options):
    from kconv.profiler import command

    command.run(
        options.model,
        input_shape=options.input_shape,
        batch_size=options.batch,
        passes=options.passes,
        refusals=options.refusals,
        json=options.json,
        csv=options.csv,
        plot=options.plot,
    )
    return 0


def _info(options):
    from kconv import info

    info.show()
    return 0


def _parser():
    parser = argparse.ArgumentParser(
        prog="kconv", description="Keras convolution layers on kernels of their own."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_bench(commands)
    _add_profile(commands)
    info = commands.add_parser(
        "info", help="print what a bug report needs: versions, processor, settings"
    )
    info.set_defaults(command=_info)
    return parser


def _add_demo(commands):
    demo = commands.add_parser(
        "demo",
        help="ResNet-50 on photographs and LeNet-5 on digits, stock against kconv",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    demo.set_defaults(command=_demo)
    demo.add_argument(
        "--weights",
        default="random",
        help='of ResNet-50: "random", "imagenet" (a download) or a file',
    )
    demo.add_argument(
        "--images",
        nargs="+",
        default=(),
        metavar="FILE",
        help="photographs, instead of the two that scikit-learn ships",
    )
    demo.add_argument(
        "--output", default="kconv_demo", metavar="FOLDER", help="for the plot"
    )
    demo.add_argument("--epochs", type=_positive, default=12, help="of LeNet-5")
    demo.add_argument("--seed", type=int, default=0, help="of every random number")


def _add_bench(commands):
    bench = commands.add_parser("bench", help="time kconv against stock TensorFlow")
    subjects = bench.add_subparsers(required=True, metavar="SUBJECT")
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
    layers.set_defaults(command=_bench_layers)
    add = layers.add_argument
    add(
        "--layers",
        choices=("3x3", "1x1", "depthwise", "grouped", "strided", "1d", "3d", "all"),
        default="all",
        help="which",
    )
    add("--batch", nargs="+", type=_positive, default=[1, 8], metavar="N")
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
    add("--threads", type=_positive, default=2, help="within an operation")
    add("--repeats", type=_positive, default=7, help="turns of each candidate")
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


def _add_profile(commands):
    profile = commands.add_parser(
        "profile",
        help="what a model costs: work, memory, receptive fields, algorithms",
        description=(
            "Prints what each layer of a model costs, without computing anything: its"
            " output, parameters, multiply-accumulates, bytes of activations,"
            " arithmetic intensity, receptive field along every path, and the algorithm"
            " that kconv takes."
        ),
    )
    profile.set_defaults(command=_profile)
    add = profile.add_argument
    add("model", metavar="MODEL", help="a name of kconv.models, or a .keras file")
    add(
        "--input-shape",
        nargs="+",
        type=_positive,
        metavar="N",
        help="without the batch, such as 224 224 3 (default: what the model knows)",
    )
    add("--batch", type=_positive, default=1, help="images (default: 1)")
    add(
        "--passes",
        nargs="+",
        choices=("forward", "input_gradient", "filter_gradient"),
        default=["forward"],
        help="to name the algorithms of (default: forward)",
    )
    add(
        "--refusals",
        action="store_true",
        help="tell for each convolution why algorithms do not take it",
    )
    for kind in ("json", "csv", "plot"):
        add(f"--{kind}", metavar="FILE", help="write the profile there too")


def _positive(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be positive. Received: {text}")
    return number
