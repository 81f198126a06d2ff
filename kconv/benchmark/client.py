"""The parent's side of a worker process.

TensorFlow reads its settings once, when it is imported. So each setting that is
compared has a process of its own, which lives as long as the benchmark and measures
only when asked: the processes take turns and never run at the same time.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading

# The command line of a worker for TensorFlow, but for the threads.
TENSORFLOW = (sys.executable, "-m", "kconv.benchmark.worker")


class Worker:
    """A process that imports TensorFlow under a setting and times calls in it.

    A process that does not answer in time is ended, and started anew when it is next
    asked. What was prepared in it is lost.

    Args:
        environment: Variables to set on top of the present ones.
        threads: Threads of the library's pool within an operation.
        command: List of strings, what starts it with another library.

    Raises:
        OSError: If the command does not exist.
        RuntimeError: In any method, if the process failed or is gone.
        TimeoutError: In `prepare`, if the process did not answer in time.
        KeyboardInterrupt: In any method, if it was interrupted.
    """

    def __init__(self, environment, threads, command=TENSORFLOW):
        self._command = [*command, str(threads)]
        self._environment = environment
        self._start()

    def _start(self):
        # TensorFlow greets at length there; shown only when the process fails.
        self._words = tempfile.TemporaryFile("w+")  # noqa: SIM115 (until close)
        self._is_overdue = False
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            text=True,
            env={**os.environ, **self._environment},
        )

    @property
    def pid(self):
        """The id of the process."""
        return self._process.pid

    def prepare(self, problem, candidate, limit=None, patience=None):
        """Builds a candidate for a problem and calls it.

        Args:
            problem: A `Problem`.
            candidate: A `Candidate`.
            limit: None, or seconds: if a call takes longer, the candidate is refused.
            patience: None, or seconds after which the process is ended.

        Returns:
            A dictionary: `refusal`, a sentence or None; `choice`, the name of the
            algorithm that runs; and `seconds`, a first estimate of a call, if it ran.
        """
        return self._ask(
            patience,
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

    def implementation(self, problem, candidate):
        """What TensorFlow takes for a candidate of stock, by `implementation.name`."""
        answer = self._ask(
            do="implementation",
            problem=problem.to_json(),
            candidate=candidate.to_json(),
        )
        return answer["implementation"]

    def multiply(self, size, count):
        """Multiplies square matrices of float32: a list of `count` times in seconds."""
        return self._ask(do="multiply", size=size, count=count)["seconds"]

    def forget(self):
        """Frees what was prepared."""
        if not self._is_overdue:
            self._ask(do="forget")

    def environment(self):
        """Describes the process: versions, processor, settings."""
        return self._ask(do="describe")

    def close(self):
        """Ends the process, whatever it does: it keeps nothing."""
        self._process.kill()
        # What could not be written is written again here.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()
        self._words.close()

    def _ask(self, patience=None, **question):
        if self._is_overdue:
            self.close()
            self._start()
        alarm = threading.Timer(patience, self._end) if patience else None
        try:
            if alarm:
                alarm.start()
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            if alarm:
                alarm.cancel()
        if self._is_overdue:
            self._process.wait()
            raise TimeoutError(f"No answer came in {patience:g} s.")
        if not line:
            code = self._process.wait()
            if code == -signal.SIGINT:
                # Ctrl-C goes to both, and this process may learn of it later.
                raise KeyboardInterrupt
            self._words.seek(0)
            raise RuntimeError(
                f"A benchmark process ended. Received: exit code {code}\n"
                f"{self._words.read()}"
            )
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def _end(self):
        self._is_overdue = True
        self._process.kill()
