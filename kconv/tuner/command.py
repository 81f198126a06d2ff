"""`kconv tune`: its arguments, and what they ask for."""

from kconv.arguments import positive

# Modules that need TensorFlow are imported by what runs.

_PASSES = ("forward", "input_gradient", "filter_gradient")


def add(commands):
    """Adds `kconv tune` to the commands of a parser."""
    tune = commands.add_parser(
        "tune",
        help="measure what is fastest for a model, and remember it",
        description=(
            "Measures every algorithm that kconv may take, and TensorFlow's own"
            " kernel, for each distinct convolution of a model, the expensive ones"
            " first, and remembers the fastest in a file (KCONV_CHOICES, or"
            " kconv/choices.json in the folder for caches), for this processor, these"
            " versions and so many threads."
        ),
    )
    tune.set_defaults(command=_run)
    add = tune.add_argument
    add(
        "model",
        nargs="?",
        metavar="MODEL",
        help="a name of kconv.models, or a .keras file",
    )
    add(
        "--input-shape",
        nargs="+",
        type=positive,
        metavar="N",
        help="without the batch, such as 224 224 3 (default: what the model knows)",
    )
    add(
        "--batch",
        nargs="+",
        type=positive,
        default=[1],
        metavar="N",
        help="images, of each batch to tune for (default: 1)",
    )
    add(
        "--passes",
        nargs="+",
        choices=_PASSES,
        default=list(_PASSES),
        help="to measure (default: all three)",
    )
    add(
        "--threads",
        type=positive,
        metavar="N",
        help="within an operation (default: what TensorFlow takes)",
    )
    add(
        "--seconds",
        type=float,
        default=60.0,
        metavar="S",
        help="to measure for (default: 60)",
    )
    add(
        "--dtype",
        choices=("float16", "bfloat16", "float32", "float64"),
        help="to measure in (default: what the model computes in)",
    )
    add(
        "--clear",
        action="store_true",
        help="first forget what was measured on this processor",
    )
    add(
        "--show",
        action="store_true",
        help="print all choices that hold here, at the end",
    )


def _run(options):
    if options.model is None and not (options.clear or options.show):
        raise ValueError("Which model? Give MODEL, --show or --clear.")
    if options.threads:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    if options.clear:
        clear()
    if options.model is not None:
        from kconv.profiler.command import load
        from kconv.tuner import tune

        shape = None if options.input_shape is None else tuple(options.input_shape)
        report = tune(
            load(options.model, shape),
            shape,
            options.passes,
            options.batch,
            options.seconds,
            options.dtype,
        )
        report.show()
    if options.show:
        show()
    return 0


def clear():
    """Forgets the choices of this processor, and says how many those were."""
    from kconv import choices, native

    native.set_choices({})
    print(f"{choices.clear()} choices of this processor are forgotten.")


def show():
    """Prints the choices that hold here."""
    from kconv import choices, native

    path, known = choices.location(), native.choices()
    print(f"{len(known)} choices hold here, from {path or 'no file'}.")
    for (threads, key), algorithm in sorted(known.items()):
        print(f"{threads} threads  {algorithm:12}  {key}")
