#!/usr/bin/env bash
# Installs the cargo tools that `make lint` uses, once, outside the checkout. Prints the folder of their programs.
set -euo pipefail
cache=${WSFLEET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/wsfleet}
tools=$cache/cargo-tools
# name version: pinned, since a new lint would turn main red without a change of ours
while read -r name version; do
  if [ "$("$tools/bin/$name" --version 2>/dev/null | grep -o '[0-9.]*$')" != "$version" ]; then
    echo "installing $name $version into $tools (some minutes, once)" >&2
    CARGO_TARGET_DIR=$cache/cargo-tools-target cargo install --quiet --locked --root "$tools" "$name@$version" >&2
  fi
done <<'TOOLS'
cargo-deny 0.18.9
cargo-machete 0.9.2
TOOLS
rm -rf "$cache/cargo-tools-target"
echo "$tools/bin"
