"""The parent's side of the processes that run whole models."""

import sys

from kconv.benchmark.client import Worker

# The command line of a worker for TensorFlow, but for the threads.
TENSORFLOW = (sys.executable, "-m", "kconv.benchmark.model_worker")


class ModelWorker(Worker):
    """A process that imports a library under a setting and runs models in it.

    Args:
        environment: As in `Worker`.
        threads: As in `Worker`.
        command: As in `Worker`.
    """

    def __init__(self, environment, threads, command=TENSORFLOW):
        super().__init__(environment, threads, command)

    def make(self, subject):
        """Makes the models of a `Subject` and writes them to its folder.

        Returns:
            A dictionary: `macs` of a batch, `parameters` and
            `difference`, that of the two predictions; of predictions also `inputs`,
            `outputs` and `shapes` of the frozen graph.
        """
        return self._ask(do="make", subject=subject.to_json())

    def memory(self, subject, candidate, calls, patience=None):
        """Runs a candidate in this process, which should be a fresh one.

        Returns:
            A dictionary of bytes: `start`, those resident before the model was there;
            `built`, before it was called; `peak`, the most since then; and `workspace`,
            the most that kconv's algorithms had of it.
        """
        return self._ask(
            patience,
            do="memory",
            subject=subject.to_json(),
            candidate=candidate.to_json(),
            calls=calls,
        )
