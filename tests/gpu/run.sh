#!/usr/bin/env bash
# Builds kconv's GPU library and proves it on the GPU of this machine.
#
#   tests/gpu/run.sh                 everything
#   tests/gpu/run.sh build           compile kconv/_cuda.so
#   tests/gpu/run.sh check           every kernel against float64 and against cuDNN
#   tests/gpu/run.sh sanitize        small cases under compute-sanitizer
#   tests/gpu/run.sh speed           a table of times beside cuDNN's
#   tests/gpu/run.sh tensorflow      kconv's layers on TensorFlow's GPU; not part of
#                                    everything, as it needs TensorFlow with CUDA and
#                                    kconv built for it in place
#
# Needs nvcc, a C++ compiler, a GPU with its driver, and a Python with NumPy,
# ml_dtypes, setuptools and PyTorch with CUDA; PYTHON names another than python3. What
# is missing is said, and ends it. `check` and `sanitize` also do with CuPy in the place of
# PyTorch, then without the comparison with cuDNN.
set -euo pipefail
cd "$(dirname "$0")/../.."

PYTHON=${PYTHON:-python3}
# Where compute-sanitizer lies, beside the nvcc that setup.py finds.
PATH=$PATH${CUDA_HOME:+:$CUDA_HOME/bin}

build() {
  # As `setup.py build_cuda`, which needs a setuptools that knows pyproject.toml.
  KCONV_CUDA=1 "$PYTHON" -c "import setup; setup.build_cuda()"
  test -f kconv/_cuda.so
}

check() {
  "$PYTHON" tests/gpu/check.py "$@"
}

sanitize() {
  local sanitizer
  sanitizer=$(command -v compute-sanitizer) || {
    echo "compute-sanitizer is missing; it comes with CUDA." >&2
    exit 1
  }
  local tool
  for tool in memcheck racecheck synccheck; do
    echo "== $tool"
    # Errors of calls of CUDA are PyTorch's, which asks what a driver has; ours are
    # failures of the check.
    local options=(--tool "$tool" --target-processes all --error-exitcode 1)
    if [ "$tool" = memcheck ]; then options+=(--report-api-errors no); fi
    "$sanitizer" "${options[@]}" "$PYTHON" tests/gpu/check.py --small
  done
}

speed() {
  "$PYTHON" tests/gpu/speed.py
}

tensorflow() {
  PYTHONPATH=. "$PYTHON" tests/gpu/in_tensorflow.py
}

stages=("$@")
if [ ${#stages[@]} -eq 0 ]; then stages=(build check sanitize speed); fi
for stage in "${stages[@]}"; do
  case $stage in
    build | check | sanitize | speed | tensorflow) ;;
    *)
      echo "A stage is build, check, sanitize, speed or tensorflow. Received: $stage" >&2
      exit 2
      ;;
  esac
done
for stage in "${stages[@]}"; do
  echo "=== $stage"
  "$stage"
done
echo "=== done: ${stages[*]}"
