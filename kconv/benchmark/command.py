"""The arguments of `kconv bench`, and the calls that they make."""

import argparse
import pathlib

from kconv.arguments import output
from kconv.benchmark import (
    auto_command,
    deformable_command,
    models_command,
    references,
)
from kconv.benchmark.arguments import add_common, common
from kconv.benchmark.candidates import MODES, STOCK_ENGINES
from kconv.benchmark.problems import ALL, LAYERS

# Modules that need TensorFlow or an extra are imported by what runs.

_DESCRIPTION = (
    "Times single convolutions of kconv in turns with those of stock TensorFlow, with"
    " oneDNN and without, each as a tf.function, called eagerly, with the kernel as a"
    " constant of a frozen graph, and stock's compiled by XLA; the best of each counts."
    " PyTorch, ONNX Runtime and OpenVINO are timed too where they are installed, and"
    " beside layers in groups the dense layer of the same width. KCONV_MAX_ISA and"
    " ONEDNN_MAX_CPU_ISA are heeded."
)


def add(commands):
    """Adds `kconv bench` to the commands of a parser."""
    bench = commands.add_parser("bench", help="time kconv against stock TensorFlow")
    subjects = bench.add_subparsers(required=True, metavar="SUBJECT")
    layers = _add_subject(subjects, "layers", "single convolutions")
    layers.add_argument(
        "--layers",
        nargs="+",
        choices=(*LAYERS, ALL),
        default=[ALL],
        metavar="KIND",
        help=f"which: {', '.join(LAYERS)}",
    )
    for kind in ("depthwise", "grouped"):
        subject = _add_subject(subjects, kind, f"single {kind} convolutions")
        subject.set_defaults(layers=[kind])
    models_command.add(subjects)
    auto_command.add(subjects)
    deformable_command.add(subjects)


def with_subject(arguments):
    """Puts the subject into a command line that names a file in its place.

    Args:
        arguments: List of strings, of the program.

    Returns:
        The same list, or one in which `kconv bench FILE` is `kconv bench file FILE`.
    """
    if arguments[:1] == ["bench"] and arguments[1:2]:
        path = pathlib.Path(arguments[1])
        if path.suffix in (".keras", ".h5") or path.is_file():
            return ["bench", "file", *arguments[1:]]
    return arguments


def _add_subject(subjects, name, words):
    parser = subjects.add_parser(
        name,
        help=words,
        description=_DESCRIPTION,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.set_defaults(command=_run_layers)
    add_common(parser)
    add = parser.add_argument
    add(
        "--roofline",
        type=output,
        metavar="FILE",
        default=argparse.SUPPRESS,
        help="draw the roofline of this machine, and the layers under it, there",
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
        "--modes",
        nargs="+",
        choices=MODES,
        default=list(MODES),
        help="how both are called; xla is stock's only",
    )
    add(
        "--engines",
        nargs="+",
        choices=STOCK_ENGINES,
        default=list(STOCK_ENGINES),
        help="what stock's kernels may use",
    )
    _add_references(add)
    return parser


def _add_references(add):
    add(
        "--references",
        nargs="*",
        choices=tuple(references.REFERENCES),
        default=argparse.SUPPRESS,
        help="other libraries to time, which then must be there; none without a name"
        " (default: those that are installed)",
    )
    add(
        "--references-python",
        nargs="+",
        metavar="FILE",
        default=[],
        help="interpreters that have them, before those that"
        f" {references.VARIABLE} names and the one that runs kconv",
    )
    add("--torch", action="store_true", help="fail if PyTorch is missing")
    add(
        "--torch-python",
        metavar="FILE",
        default=argparse.SUPPRESS,
        help="the same, and the interpreter that has it (default:"
        f" {references.TORCH_VARIABLE})",
    )


def _run_layers(options):
    from kconv.benchmark import layers

    wanted = getattr(options, "references", None)
    torch_python = getattr(options, "torch_python", None)
    torch = ["torch"] if options.torch or torch_python else []
    pythons = [torch_python] if torch_python else []
    layers.run(
        **common(options),
        layers=options.layers,
        algorithms=getattr(options, "algorithm", None),
        modes=options.modes,
        engines=options.engines,
        wanted=wanted,
        required=[*torch, *(wanted or ())],
        pythons=[*pythons, *options.references_python],
        roofline=getattr(options, "roofline", None),
    )
    return 0
