#!/usr/bin/env bash
# Copies the generated CustomResourceDefinition into the chart; with --check, fails when the copy is not the same.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
name=wsfleet.dev_websocketclusters.yaml
source=crds/$name copy=charts/wsfleet/files/$name
case "${1:-}" in
  "") mkdir -p "$(dirname "$copy")" && cp "$source" "$copy" ;;
  --check) diff -u "$copy" "$source" || { echo "$copy is not $source: run charts/sync.sh" >&2; exit 1; } ;;
  *) echo "usage: charts/sync.sh [--check]" >&2; exit 64 ;;
esac
