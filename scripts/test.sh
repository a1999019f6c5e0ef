#!/usr/bin/env bash
# Builds everything and runs the tests.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: scripts/test.sh [option of ctest ...]

Installs what is missing (ONNX Runtime too, from npm into build/onnxruntime; without a network
its tests skip), builds program, tests, fuzz targets and benchmarks, and runs
"ctest --preset release". One test at a time, because those of the network wait for real
deadlines; -j makes it quicker where cores are idle.

Examples:
  scripts/test.sh
  scripts/test.sh -R transport
  scripts/test.sh -L unit -j 4
TEXT
}

case ${1:-} in
  --help | -h) usage; exit 0 ;;
esac
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
"$root/scripts/set-up.sh" all
"$root/scripts/onnx-runtime.sh" || echo "test: no ONNX Runtime; the tests that compare with it will skip" >&2
cd "$root"
exec ctest --preset release "$@"
