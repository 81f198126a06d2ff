"""The parent's side of a worker process.

TensorFlow reads its settings once, when it is imported. So each setting that is
compared has a process of its own, which lives as long as the benchmark and measures
only when asked: the processes take turns and never run at the same time.
"""

import json
import os
import subprocess
import sys
import tempfile


class Worker:
    """A process that imports TensorFlow under a setting and times calls in it.

    Args:
        environment: Variables to set on top of the present ones.
        threads: Threads of TensorFlow's pool within an operation.

    Raises:
        RuntimeError: In any method, if the process failed or is gone.
    """

    def __init__(self, environment, threads):
        # TensorFlow greets at length there; shown only when the process fails.
        self._words = tempfile.TemporaryFile("w+")  # noqa: SIM115 (until close)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kconv.benchmark.worker", str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            text=True,
            env={**os.environ, **environment},
        )

    def prepare(self, problem, candidate):
        """Builds a candidate for a problem and calls it once.

        Returns:
            A dictionary: `refusal`, a sentence or None, and `choice`, the name of
            the algorithm that runs.
        """
        return self._ask(
            do="prepare", problem=problem.to_json(), candidate=candidate.to_json()
        )

    def time(self, candidate, seconds):
        """Calls a prepared candidate once unmeasured, then for some time.

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
