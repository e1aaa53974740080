#!/usr/bin/env bash
# Installs the runner of the conformance cases into the cache, once. Prints the Python that has it.
. "$(dirname "$0")/../cluster/lib.sh"
folder=$REPO/tests/conformance
venv=$CACHE/conformance
wanted=$(sha256sum <"$folder/requirements.txt")

if [ "$(cat "$venv/installed" 2>/dev/null)" != "$wanted" ]; then
    python3 -c 'import ensurepip, venv' 2>/dev/null || "$HERE/deps.sh" conformance >&2
    step "installing the conformance cases into $venv"
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: --require-hashes \
        -r "$folder/requirements.txt" >&2
    echo "$wanted" >"$venv/installed"
fi
echo "$venv/bin/python"
