# Sourced by demo.sh and test.sh with the current folder at the repository's root.
# Makes .venv where there is none and installs the project into it, once.

say() {
    printf '%s\n' "$*" >&2
}

fail() {
    say "Error: $*"
    exit 4
}

is_recent() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# Sets PYTHON to an interpreter that is recent enough; a Mac's own python3 may not be.
find_python() {
    if [ -n "${PYTHON:-}" ]; then
        is_recent "$PYTHON" || fail "PYTHON=$PYTHON is not a Python 3.11 or newer;" \
            "give the path of one: PYTHON=python3.12 sh scripts/demo.sh"
        return
    fi
    for PYTHON in python3 python3.13 python3.12 python3.11; do
        if is_recent "$PYTHON"; then return; fi
    done
    fail "Python 3.11 or newer was not found; install one, or give its path:" \
        "PYTHON=/path/to/python3 sh scripts/demo.sh"
}

make_venv() {
    # A half-made .venv has an interpreter but no pip; making it again mends that.
    if [ ! -x .venv/bin/python ] || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
        find_python
        say "Creating .venv with $("$PYTHON" --version)"
        "$PYTHON" -m venv .venv || fail ".venv could not be created; where the message above" \
            "names a missing package, install it and run the same command again."
    fi
    is_recent .venv/bin/python || fail "the Python in .venv is older than 3.11;" \
        "delete the folder .venv and run the same command again."
}

warn_of_the_build() {
    for built in .venv/lib/python*/site-packages/llama_cpp; do
        if [ -d "$built" ]; then return; fi
    done
    say "llama-cpp-python is compiled from source, once: about 7 minutes on two cores."
    command -v "${CXX:-c++}" >/dev/null || command -v g++ >/dev/null ||
        command -v clang++ >/dev/null ||
        say "No C++ compiler was found and it needs one (Debian: apt install g++;" \
            "macOS: xcode-select --install)."
}

# install TARGET STAMP: "." or ".[dev]", and the file that says what is installed already.
install() {
    # The folder is in it because an editable install points at it.
    wanted="$(cksum <pyproject.toml) $PWD"
    for stamp in "$2" .venv/.installed-dev; do
        if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then return; fi
    done
    make_venv
    warn_of_the_build
    say "Installing $1 into .venv"
    CMAKE_BUILD_PARALLEL_LEVEL="${CMAKE_BUILD_PARALLEL_LEVEL:-$(getconf _NPROCESSORS_ONLN)}" \
        .venv/bin/python -m pip install --disable-pip-version-check -e "$1" >&2 ||
        fail "the installation stopped, for the reason above;" \
            "once that is mended, the same command goes on."
    printf '%s\n' "$wanted" >"$2"
}
