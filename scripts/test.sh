#!/bin/sh
# Installs the project and its tools where they are not installed yet, then runs the tests;
# options are pytest's.
set -eu
cd "$(dirname "$0")/.."
. scripts/install.sh
install '.[dev]' .venv/.installed-dev
exec .venv/bin/python -m pytest "$@"
