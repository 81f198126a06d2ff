"""The arguments of `kconv bench models`, `train` and `file`, and what they call."""

import argparse

from kconv.arguments import positive
from kconv.benchmark import model_references
from kconv.benchmark.arguments import add_common, common
from kconv.benchmark.candidates import MODES, STOCK_ENGINES
from kconv.benchmark.references import VARIABLE
from kconv.benchmark.subjects import DTYPES, PREDICT, TRAIN, Subject

# Modules that need TensorFlow or an extra are imported by what runs.

# Those whose memory is promised, and which everybody knows.
NAMES = ("vgg16", "resnet50", "mobilenet_v2")

# Of a training step, whose activations are all kept.
TRAINING_BATCH, TRAINING_SIZE = 8, 128

# Of a file: the dtype policies that it holds.
SAVED = "saved"

_DESCRIPTION = (
    " of whole models on kconv's layers in turns with the same on stock ones, each with"
    " oneDNN and without, as a tf.function, eagerly, as a frozen graph, and stock's"
    " compiled by XLA; the best of each counts. PyTorch (the same Keras model), ONNX"
    " Runtime and OpenVINO are timed too where they are installed. The peak of the"
    " resident memory is measured in processes of their own."
)


def add(subjects):
    """Adds the subjects that are whole models to those of `kconv bench`."""
    models = _add_subject(subjects, "models", "predictions", (1, 8), DTYPES)
    train = _add_subject(
        subjects, "train", "training steps", (TRAINING_BATCH,), DTYPES, TRAINING_SIZE
    )
    for parser in (models, train):
        parser.add_argument(
            "names",
            nargs="*",
            default=list(NAMES),
            metavar="NAME",
            help="of kconv.models.list(), with random weights",
        )
    train.set_defaults(train=True)
    file = _add_subject(
        subjects, "file", "predictions or training steps", (8,), (SAVED, *DTYPES)
    )
    file.add_argument(
        "names", nargs="+", metavar="FILE", help="a model that Keras saved"
    )
    file.add_argument(
        "--train", action="store_true", help="training steps, not predictions"
    )


def _add_subject(subjects, name, words, batches, dtypes, size=None):
    parser = subjects.add_parser(
        name,
        help=f"{words} of {'a saved model' if name == 'file' else 'whole models'}",
        description=f"Times {words}{_DESCRIPTION}",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.set_defaults(command=_run, train=False)
    add_common(parser, batches=batches, passes=None, dtypes=dtypes, seconds=60.0)
    add = parser.add_argument
    add(
        "--size",
        type=positive,
        metavar="N",
        help="height and width of images",
        default=size or argparse.SUPPRESS,
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
        help="what TensorFlow's own kernels may use",
    )
    add(
        "--patience",
        type=float,
        default=180.0,
        help="seconds that loading, tracing and compiling may take together",
    )
    add("--no-memory", action="store_true", help="measure time only")
    add(
        "--references",
        nargs="*",
        choices=tuple(model_references.REFERENCES),
        default=argparse.SUPPRESS,
        help="other libraries to time; none without a name (default: all)",
    )
    add(
        "--references-python",
        nargs="+",
        metavar="FILE",
        default=[],
        help=f"interpreters that have them, before those that {VARIABLE} names and"
        " the one that runs kconv",
    )
    return parser


def _run(options):
    from kconv.benchmark import models

    shared = common(options)
    dtype = None if options.dtype == SAVED else options.dtype
    subjects = [
        Subject(
            model=name,
            pass_=TRAIN if options.train else PREDICT,
            batch=batch,
            size=getattr(options, "size", None),
            dtype=dtype,
            layout=layout,
        )
        for name in options.names
        for layout in shared["layout"]
        for batch in shared["batch"]
    ]
    models.run(
        subjects,
        **{
            name: shared[name]
            for name in ("threads", "repeats", "seconds", "csv", "json", "plot")
        },
        modes=options.modes,
        engines=options.engines,
        patience=options.patience,
        memory=not options.no_memory,
        wanted=getattr(options, "references", None),
        pythons=options.references_python,
    )
    return 0
