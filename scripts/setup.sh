#!/bin/sh
# Create or complete the virtual environment .venv:
#
#   scripts/setup.sh serve    the requirements of serving, without torch
#   scripts/setup.sh dev      in addition those of training, checks and tests
#
# PYTHON is the interpreter of a new environment; pip reads its own variables (PIP_EXTRA_INDEX_URL, …).
set -eu
cd "$(dirname "$0")/.."

tier=${1:?serve or dev}
python=${PYTHON:-python3}
venv=.venv

log() { printf 'polymodal: %s\n' "$*" >&2; }

usable() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

# Start again after an interrupted installation: pip would treat half a package as complete.
if [ -e "$venv/unfinished" ] || ! usable "$venv/bin/python" || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    if ! command -v "$python" >/dev/null; then
        log "there is no command $python; install Python 3.11 or newer, or name one: make PYTHON=python3.12 …"
        exit 1
    fi
    if ! usable "$python"; then
        log "Python 3.11 or newer is needed, and $python is $("$python" -V 2>&1); name another: make PYTHON=python3.12 …"
        exit 1
    fi
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        log "$python cannot make virtual environments; on Debian and Ubuntu the package python3-venv adds that"
        exit 1
    fi
    "$python" -m venv --clear "$venv"
fi

install() { "$venv/bin/python" -m pip install --disable-pip-version-check --constraint constraints.txt "$@"; }

touch "$venv/unfinished"
case $tier in
serve)
    log 'installing the requirements of serving into .venv'
    "$venv/bin/python" scripts/serve_requirements.py >"$venv/serve-requirements.txt"
    install --requirement "$venv/serve-requirements.txt"
    install --no-deps --editable .
    ;;
dev)
    log 'installing the requirements of training, checks and tests into .venv; torch is large'
    install --editable '.[dev]' --editable ./client # one command, so that nothing else can select another torch
    touch "$venv/serve.ok"
    ;;
*)
    log "unknown tier $tier; allowed: serve, dev"
    exit 2
    ;;
esac
rm "$venv/unfinished"
touch "$venv/$tier.ok"
