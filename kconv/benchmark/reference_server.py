"""What the workers for other libraries have in common.

They run as scripts, under an interpreter that needs neither kconv nor TensorFlow, and
so import only files beside them.
"""

from problems import Problem
from server import Stopwatch


class ReferenceServer:
    """Answers the questions of one parent process.

    Subclasses have `name`, that of the candidates; `describe`, which returns a
    dictionary of versions; and `make_call`, which of a `Problem` and a mode returns a
    function and its arguments, or raises RuntimeError with a sentence. Their problems
    may be of another class, `problem_class`.
    """

    problem_class = Problem

    def __init__(self):
        self._stopwatch = Stopwatch()

    def prepare(self, problem, candidate, limit=None):
        """Makes random operands and calls it."""
        answer = {"refusal": None, "choice": self.name}
        try:
            call, arguments = self.make_call(
                self.problem_class.from_json(problem), candidate["mode"]
            )
            return answer | self._stopwatch.prepare(
                candidate["mode"], call, arguments, limit
            )
        except RuntimeError as error:
            return answer | {"refusal": str(error).splitlines()[0]}

    def time(self, candidate, seconds):
        """Measures a candidate that is prepared."""
        return {"seconds": self._stopwatch.measure(candidate["mode"], seconds)}

    def forget(self):
        """Frees the operands."""
        self._stopwatch.forget()
        return {}


def check_forward(problem, title):
    """Raises RuntimeError unless a problem is one that inference has."""
    if problem.pass_ != "forward":
        raise RuntimeError(f"{title} runs models and computes no gradients.")


def weights_shape(problem):
    """(filters, channels // groups, *kernel) as other libraries have them."""
    *size, channels, filters = problem.filter_shape
    return filters, channels, *size
