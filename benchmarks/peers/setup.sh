#!/bin/sh
# Create an environment for each peer: model/ with torch and ONNX Runtime, and the peer in the version of its file.
#
#   benchmarks/peers/setup.sh [NAME …]     all, or some of: fastapi litserve bentoml mosec ray
set -eu
cd "$(dirname "$0")/../.."

python=${PYTHON:-python3}
[ $# -gt 0 ] || set -- fastapi litserve bentoml mosec ray

for name; do
    venv=benchmarks/.venvs/$name
    [ ! -e "$venv/ok" ] || continue
    "$python" -m venv --clear "$venv"
    "$venv/bin/python" -m pip install --disable-pip-version-check --quiet --requirement "benchmarks/peers/$name.txt"
    touch "$venv/ok"
done
