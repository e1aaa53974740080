#!/usr/bin/env bash
# Installs what a folder's requirements.txt pins into a Python of its own in the cache, once. Prints the folder of its programs.
#   usage: python.sh FOLDER      FOLDER: of the repository, with a requirements.txt, such as tests/api
. "$(dirname "$0")/cluster/lib.sh"
requirements=$REPO/$1/requirements.txt
venv=$CACHE/$(basename "$1")
wanted=$(sha256sum <"$requirements")

mkdir -p "$CACHE"
exec 8>"$venv.lock"
flock 8 # tests that run at once need one installation
if [ "$(cat "$venv/installed" 2>/dev/null)" != "$wanted" ]; then
    python3 -c 'import ensurepip, venv' 2>/dev/null || "$HERE/deps.sh" conformance >&2
    step "installing what $1 needs into $venv"
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: --require-hashes \
        -r "$requirements" >&2
    echo "$wanted" >"$venv/installed"
fi
echo "$venv/bin"
