#!/usr/bin/env bash
# Packages, configuration and build: everything that demo.sh and test.sh need. Quick when nothing is to be done.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: scripts/set-up.sh [options] [target ...]

Installs the Debian packages of packaging/apt.txt that are missing, configures build/<preset>
when that was not done yet, and builds the targets. Without a target nothing is built.

  preceptor          the program alone
  all                program, tests, fuzz targets and benchmarks

Options:
  --preset NAME      preset of CMakePresets.json (release)
  --jobs N           compilers at a time (one a core, and 2 GiB of free memory for each)
  --no-packages      leave the packages alone
  --help             this text

Environment: CC and CXX choose the compiler when build/<preset> is configured for the first time.
TEXT
}

die() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
preset=release jobs='' packages=yes targets=()
while (($# > 0)); do
  case $1 in
    --help | -h) usage; exit 0 ;;
    --preset) preset=${2:?"--preset wants a name"}; shift ;;
    --jobs) jobs=${2:?"--jobs wants a number"}; shift ;;
    --no-packages) packages=no ;;
    -*) usage >&2; exit 2 ;;
    *) targets+=("$1") ;;
  esac
  shift
done

# The names in packaging/apt.txt that no installed package has or provides (NodeSource's nodejs provides npm).
missing_packages() {
  local wanted installed
  wanted=$(grep -Ev '^[[:space:]]*(#|$)' "$root/packaging/apt.txt" | sort -u)
  installed=$(dpkg-query -W -f '${db:Status-Status} ${Package} ${Provides}\n' | sed -n 's/^installed //p' | sed 's/([^)]*)//g' | tr -s ' ,' '\n' | sort -u)
  comm -23 <(printf '%s\n' "$wanted") <(printf '%s\n' "$installed")
}

install_packages() {
  local missing as_root=()
  if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "set-up: no Debian here; packaging/apt.txt says what has to be installed by hand" >&2
    return
  fi
  mapfile -t missing < <(missing_packages)
  ((${#missing[@]} > 0)) || return 0
  if ((EUID != 0)); then
    command -v sudo >/dev/null || die "neither root nor sudo; ask an administrator for: apt-get install --no-install-recommends ${missing[*]}"
    as_root=(sudo)
    [[ -t 0 ]] || as_root=(sudo -n)  # nobody is there to type a password
  fi
  echo "set-up: installing ${missing[*]}" >&2
  local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300)
  "${as_root[@]}" "${apt[@]}" update </dev/null || die "apt-get update failed; are root rights and the network there? Missing: ${missing[*]}"
  "${as_root[@]}" "${apt[@]}" install --no-install-recommends "${missing[@]}" </dev/null ||
    die "apt-get could not install: ${missing[*]}. Debian 12 or newer has them all."
}

# Ninja configures again by itself when a CMake file or the set of sources changes, but knows
# nothing of the presets, nor of a folder that was moved.
configure() {
  local build=$1 home=''
  [[ -f $build/CMakeCache.txt ]] && home=$(sed -n 's/^CMAKE_HOME_DIRECTORY:INTERNAL=//p' "$build/CMakeCache.txt")
  if [[ -f $build/build.ninja && $home == "$root" && -f $build/.configured && ! $root/CMakePresets.json -nt $build/.configured ]]; then
    return
  fi
  local fresh=()
  [[ -n $home && $home != "$root" ]] && fresh=(--fresh)
  (cd "$root" && cmake --preset "$preset" "${fresh[@]}")
  touch "$build/.configured"
}

# A source that includes LibTorch takes up to 2 GiB to compile.
default_jobs() {
  local cores kib
  cores=$(nproc)
  kib=$(awk '$1 == "MemAvailable:" {print $2}' /proc/meminfo)
  local room=$((kib / 2097152))
  ((room >= 1)) || room=1
  echo $((cores < room ? cores : room))
}

[[ $packages == no ]] || install_packages
for tool in cmake ninja; do
  command -v "$tool" >/dev/null || die "$tool is missing; packaging/apt.txt lists all that is needed"
done
build=$root/build/$preset
configure "$build"
if ((${#targets[@]} > 0)); then
  # No "-- ninja" noise when there is nothing to build.
  ninja -C "$build" -j "${jobs:-$(default_jobs)}" "${targets[@]}"
fi
