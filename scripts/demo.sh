#!/usr/bin/env bash
# Builds the program and runs a whole federation on this machine.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: scripts/demo.sh [config.yaml] [--out DIR] [option of "preceptor sim run" ...]

Installs what is missing, builds the program (not the tests), runs a simulated consortium and
says where its report lies. No image is downloaded: the demo draws its own.

  config.yaml        which run (configs/sim/demo.yaml)
  --out DIR          run directory (runs/demo)

Examples:
  scripts/demo.sh
  scripts/demo.sh configs/sim/smoke.yaml --out /tmp/smoke
  scripts/demo.sh --set seed=2 --set federation.rounds=3
TEXT
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
config='' out=$root/runs/demo more=()
while (($# > 0)); do
  case $1 in
    --help | -h) usage; exit 0 ;;
    --out) out=${2:?"--out wants a directory"}; shift ;;
    --out=*) out=${1#--out=} ;;
    --set) more+=("$1" "${2:?"--set wants key=value"}"); shift ;;
    -*) more+=("$1") ;;
    *)
      [[ -z $config ]] || { usage >&2; exit 2; }
      config=$1 ;;
  esac
  shift
done
config=${config:-$root/configs/sim/demo.yaml}
# A name that is not found from here is one of the repository's.
[[ -e $config || ! -e $root/$config ]] || config=$root/$config

"$root/scripts/set-up.sh" preceptor
"$root/build/release/preceptor" sim run "$config" --out "$out" "${more[@]}"
echo "The report: $(cd "$out" && pwd)/report.html"
