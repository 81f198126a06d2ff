"""The GPU kernels of kconv's ops, by a stand-in for the GPU: see `gpu_ops.py`."""

import pathlib
import re
import subprocess
import sys

FOLDER = pathlib.Path(__file__).parent


def test_ops_by_their_gpu_kernels():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, FOLDER / "gpu_ops.py"],
        cwd=FOLDER.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    (passed,) = re.findall(r"(\d+) passed", done.stdout)
    assert int(passed) > 20
    assert "skipped" not in done.stdout
