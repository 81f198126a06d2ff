"""What a machine can do at most, measured: the lines of a roofline."""

import concurrent.futures
import dataclasses
import os
import time

# The matrix product that stands for the peak: its side, and how often it is tried.
_SIDE, _TRIES = 1536, 7

# Arrays that are copied are together so many times the last cache, and at least so big.
_CACHES, _LEAST_BYTES = 4, 256 << 20


@dataclasses.dataclass(frozen=True)
class Machine:
    """What was measured, with the threads of the benchmark.

    Attributes:
        flops: Operations a second of the best of several float32 matrix products of
            TensorFlow's, each of its products and sums counted.
        bandwidth: Bytes a second that the best of several copies of a large array read
            and wrote.
    """

    flops: float
    bandwidth: float

    def ceiling(self, intensity):
        """Operations a second that the roofline allows for those a byte."""
        return min(self.flops, intensity * self.bandwidth)

    def describe(self):
        """A dictionary of plain values, for the report."""
        return {
            "peak": f"{1e-9 * self.flops:.1f} GFLOP/s, the best float32 matrix product",
            "bandwidth": f"{1e-9 * self.bandwidth:.1f} GB/s, the best copy in memory",
        }


def measure(workers, threads):
    """Measures the machine, while nothing else should run.

    Args:
        workers: The `Worker`s whose matrix products are tried.
        threads: Threads that copy.

    Returns:
        A `Machine`.
    """
    seconds = [s for worker in workers for s in worker.multiply(_SIDE, _TRIES)]
    return Machine(2 * _SIDE**3 / min(seconds), _bandwidth(threads))


def _bandwidth(threads):
    import numpy as np

    size = max(_LEAST_BYTES, _CACHES * _last_cache()) // 8 // threads // 2
    # Ones, since pages of zeros need not be in memory.
    pairs = [(np.ones(size), np.ones(size)) for _ in range(threads)]
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:

        def copy():
            started = time.perf_counter()
            # NumPy lets go of Python's lock while it copies.
            list(pool.map(lambda pair: np.copyto(*pair), pairs))
            return time.perf_counter() - started

        best = min(copy() for _ in range(_TRIES))
    return 2 * 8 * size * threads / best


def _last_cache():
    """Bytes of the last cache, zero if nobody tells."""
    from kconv import native

    core = native.core()
    if core:
        return core.cpu_info()["l3"]
    try:
        return max(os.sysconf("SC_LEVEL3_CACHE_SIZE"), 0)
    except (OSError, ValueError):
        return 0
