"""The parent's side of a worker process.

TensorFlow reads its settings once, when it is imported. So each setting that is
compared has a process of its own, which lives as long as the benchmark and measures
only when asked: the processes take turns and never run at the same time.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

# The command lines of the workers, but for the threads.
TENSORFLOW = (sys.executable, "-m", "kconv.benchmark.worker")


def pytorch(python=None):
    """The command line of a worker for PyTorch.

    Args:
        python: None, or the interpreter that has PyTorch; by default
            KCONV_TORCH_PYTHON, or the present one.

    Returns:
        A tuple of strings.
    """
    python = python or os.environ.get("KCONV_TORCH_PYTHON") or sys.executable
    return python, str(Path(__file__).with_name("pytorch_worker.py"))


class Worker:
    """A process that imports TensorFlow under a setting and times calls in it.

    Args:
        environment: Variables to set on top of the present ones.
        threads: Threads of the library's pool within an operation.
        command: List of strings, what starts it with another library.

    Raises:
        OSError: If the command does not exist.
        RuntimeError: In any method, if the process failed or is gone.
    """

    def __init__(self, environment, threads, command=TENSORFLOW):
        # TensorFlow greets at length there; shown only when the process fails.
        self._words = tempfile.TemporaryFile("w+")  # noqa: SIM115 (until close)
        self._process = subprocess.Popen(
            [*command, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            text=True,
            env={**os.environ, **environment},
        )

    def prepare(self, problem, candidate, limit=None):
        """Builds a candidate for a problem and calls it.

        Args:
            problem: A `Problem`.
            candidate: A `Candidate`.
            limit: None, or seconds: if a call takes longer, the candidate is refused.

        Returns:
            A dictionary: `refusal`, a sentence or None; `choice`, the name of the
            algorithm that runs; and `seconds`, a first estimate of a call, if it ran.
        """
        return self._ask(
            do="prepare",
            problem=problem.to_json(),
            candidate=candidate.to_json(),
            limit=limit,
        )

    def time(self, candidate, seconds):
        """Calls a prepared candidate unmeasured, unless that is long, then for a time.

        Returns:
            The seconds of each measured call; one at least.
        """
        answer = self._ask(do="time", candidate=candidate.to_json(), seconds=seconds)
        return answer["seconds"]

    def forget(self):
        """Frees what was prepared."""
        self._ask(do="forget")

    def environment(self):
        """Describes the process: versions, processor, settings."""
        return self._ask(do="describe")

    def close(self):
        """Ends the process."""
        # What could not be written is written again here.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()
        self._words.close()

    def _ask(self, **question):
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self._process.wait()
            self._words.seek(0)
            raise RuntimeError(
                f"A benchmark process ended. Received: exit code {code}\n"
                f"{self._words.read()}"
            )
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer
