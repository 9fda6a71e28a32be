#!/bin/sh
# List the packages of the service, and check them for advisories:
#
#   scripts/supply.sh sbom     write dist/polymodal.cdx.json: every package that serving installs, as CycloneDX
#   scripts/supply.sh audit    check constraints.txt for advisories of the Python Package Index; exit code 1 when there is one
#
# Both use environments of their own in build/. PYTHON is the interpreter of these.
set -eu
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
tools=build/supply-tools
serving=build/supply-serving

environment() { [ -x "$1/bin/python" ] || "$python" -m venv "$1"; }

install() {
    at=$1
    shift
    "$at/bin/python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt "$@"
}

environment "$tools"
install "$tools" cyclonedx-bom pip-audit

case ${1:?sbom or audit} in
sbom)
    rm -rf "$serving" # without packages of an earlier run
    "$python" -m venv "$serving"
    "$python" scripts/serve_requirements.py >build/serve-requirements.txt
    install "$serving" --requirement build/serve-requirements.txt
    "$serving/bin/python" -m pip uninstall --quiet --yes --disable-pip-version-check pip setuptools
    mkdir -p dist
    "$tools/bin/cyclonedx-py" environment --pyproject pyproject.toml --mc-type application --output-reproducible \
        --output-file dist/polymodal.cdx.json "$serving/bin/python"
    echo "dist/polymodal.cdx.json: $(grep -c '"purl"' dist/polymodal.cdx.json) packages"
    ;;
audit)
    "$tools/bin/pip-audit" --requirement constraints.txt --no-deps --disable-pip --progress-spinner off
    ;;
*)
    echo "polymodal: unknown command $1; allowed: sbom, audit" >&2
    exit 2
    ;;
esac
