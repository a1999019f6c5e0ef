#!/usr/bin/env bash
# ONNX Runtime for the tests of export: npm's onnxruntime-node in build/onnxruntime. Quick when it is there.
set -euo pipefail

version=1.22.0
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=$root/build/onnxruntime
package=$folder/node_modules/onnxruntime-node
if [[ ${1:-} == --help || ${1:-} == -h ]]; then
  echo "Usage: scripts/onnx-runtime.sh
Installs onnxruntime-node $version from npm into build/onnxruntime, if it is not there. The tests of export skip without."
  exit 0
fi
[[ ! -f $package/package.json || $(sed -n 's/.*"version": *"\([^"]*\)".*/\1/p' "$package/package.json" | head -n 1) != "$version" ]] || exit 0
command -v npm >/dev/null || { echo "onnx-runtime: npm is missing; packaging/apt.txt lists all that is needed" >&2; exit 1; }
mkdir -p "$folder"
# Its own script after the installation would fetch a runtime for CUDA.
npm install --prefix "$folder" --ignore-scripts --no-audit --no-fund --loglevel=error "onnxruntime-node@$version"
# Of 236 MB, 200 are for other systems.
rm -rf "$package"/bin/napi-v*/{darwin,win32}
