#!/usr/bin/env bash
# Installs what checks the server API into the cache, once. Prints the folder of its programs.
. "$(dirname "$0")/../cluster/lib.sh"
folder=$REPO/tests/api
venv=$CACHE/api
wanted=$(sha256sum <"$folder/requirements.txt")

if [ "$(cat "$venv/installed" 2>/dev/null)" != "$wanted" ]; then
    python3 -c 'import ensurepip, venv' 2>/dev/null || "$HERE/deps.sh" conformance >&2
    step "installing what checks the server API into $venv"
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: --require-hashes \
        -r "$folder/requirements.txt" >&2
    echo "$wanted" >"$venv/installed"
fi
echo "$venv/bin"
