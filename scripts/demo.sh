#!/bin/sh
# Installs the project where it is not installed yet, then runs the demo; options are its own.
set -eu
cd "$(dirname "$0")/.."
. scripts/install.sh
install . .venv/.installed
exec .venv/bin/harness demo "$@"
