"""`kconv bench layers`: single layers, kconv against stock, in one run."""

from rich.console import Console
from rich.progress import Progress

from kconv.benchmark import plots, references, report
from kconv.benchmark.candidates import MODES, STOCK_ENGINES
from kconv.benchmark.problems import ALL, LAYOUTS, PASSES, make_problems
from kconv.benchmark.race import LayerBenchmark


def run(
    layers=(ALL,),
    batch=(1, 8),
    passes=PASSES,
    algorithms=None,
    dtype="float32",
    layout=LAYOUTS[:1],
    modes=MODES,
    engines=STOCK_ENGINES,
    threads=2,
    repeats=7,
    seconds=5.0,
    wanted=None,
    required=(),
    pythons=(),
    csv=None,
    json=None,
    plot=None,
    roofline=None,
):
    """Measures layers and prints the results.

    Interrupted, it prints what it has.

    Args:
        layers: As in `make_problems`.
        batch: Batch sizes.
        passes: Names of passes.
        algorithms: Names of algorithms; by default "auto" and each of kconv's.
        dtype: Type of all operands.
        layout: Names from `LAYOUTS`.
        modes: As in `LayerBenchmark`.
        engines: As in `LayerBenchmark`.
        threads: As in `LayerBenchmark`.
        repeats: As in `LayerBenchmark`.
        seconds: As in `LayerBenchmark`.
        wanted: As in `references.find`.
        required: As in `references.find`.
        pythons: Interpreters, as `named` in `references.find`.
        csv: None, or a path to write to.
        json: None, or a path to write to.
        plot: None, or a path to write a picture of the ratios to.
        roofline: None, or a path to write a picture of the roofline to.

    Raises:
        ValueError: If there is no such algorithm.
        RuntimeError: If a process of the benchmark fails, or a reference is missing.
    """
    algorithms = _known(algorithms)
    plots.check(plot, roofline)
    found = references.find(wanted, pythons, required)
    problems = make_problems(layers, batch, passes, dtype, layout)
    console = Console()
    comparisons = []
    settings = algorithms, modes, engines, threads, repeats, seconds, found
    with LayerBenchmark(*settings) as benchmark:
        environment = benchmark.environment() | _missing(wanted, found)
        measured = benchmark.machine()
        for name, value in (environment | measured.describe()).items():
            console.print(f"{name}: {value}", highlight=False, soft_wrap=True)
        watch = benchmark.watch()
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("", total=len(problems))
            try:
                for problem in problems:
                    progress.update(task, description=str(problem))
                    watch.sample()
                    comparisons.append(report.Comparison(benchmark.measure(problem)))
                    progress.advance(task)
                watch.sample()
            except KeyboardInterrupt:
                progress.stop()
                console.print(f"Interrupted after {len(comparisons)} problems.")
    if not comparisons:
        return
    report.show(comparisons, measured, console)
    verdict = watch.verdict()
    style = "bold red" if verdict.reasons else None
    console.print(str(verdict), highlight=False, soft_wrap=True, style=style)
    if csv:
        report.write_csv(comparisons, csv, measured)
    if json:
        report.write_json(comparisons, environment, json, measured, verdict)
    if plot:
        plots.ratios(comparisons, plot)
    if roofline:
        plots.roofline(comparisons, measured, roofline)


def _missing(wanted, found):
    """What is told of references that are not there."""
    asked = references.REFERENCES if wanted is None else wanted
    return {name: "not installed" for name in asked if name not in found}


def _known(algorithms):
    from kconv import native, ops
    from kconv.settings import AUTO, AUTO_STRICT

    # Stock is measured anyway.
    known = [AUTO, AUTO_STRICT, *ops.algorithms()[:-1]]
    unknown = set(algorithms or ()) - set(known)
    if unknown:
        raise ValueError(
            f"Algorithms must be among {known}. Received: {sorted(unknown)}"
        )
    return algorithms or [AUTO, *(native.core().algorithms() if native.ops() else [])]
