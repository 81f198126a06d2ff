"""The command line: `kconv demo | bench | profile | tune | info`."""

import argparse
import sys

from kconv.arguments import output, positive
from kconv.benchmark import command
from kconv.tuner import command as tuner_command

# The exit status that shells give what Ctrl-C ended.
INTERRUPTED = 130

# Modules that need an extra are imported by the command that needs them.


def main(arguments=None):
    """Runs a command.

    Args:
        arguments: List of strings; `sys.argv[1:]` by default.

    Returns:
        The exit status: 0 if all went well, 1 if a comparison or the command failed,
        130 if Ctrl-C ended it before there was anything to tell.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(command.with_subject(arguments))
    try:
        return options.command(options)
    except ModuleNotFoundError as error:
        missing = f"{error.name} is missing: pip install 'kconv[demo,bench]'"
        print(f"kconv: {missing}", file=sys.stderr)
    except KeyboardInterrupt:
        return INTERRUPTED
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

    info.show(as_json=options.json)
    return 0


def _parser():
    parser = argparse.ArgumentParser(
        prog="kconv", description="Keras convolution layers on kernels of their own."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_demo(commands)
    command.add(commands)
    _add_profile(commands)
    tuner_command.add(commands)
    info = commands.add_parser(
        "info", help="print what a bug report needs: versions, processor, settings"
    )
    info.add_argument("--json", action="store_true", help="as JSON")
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
    demo.add_argument("--epochs", type=positive, default=12, help="of LeNet-5")
    demo.add_argument("--seed", type=int, default=0, help="of every random number")


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
        type=positive,
        metavar="N",
        help="without the batch, such as 224 224 3 (default: what the model knows)",
    )
    add("--batch", type=positive, default=1, help="images (default: 1)")
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
        add(
            f"--{kind}",
            type=output,
            metavar="FILE",
            help="write the profile there too",
        )
