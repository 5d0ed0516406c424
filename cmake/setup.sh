#!/usr/bin/env bash
# Finds what a build of lorapp needs, installs what is missing, and writes BUILD/lorapp-env.sh for the scripts that build.
#
#   bash cmake/setup.sh [BUILD]        BUILD is the build folder (default: build, beside the sources)
#   . BUILD/lorapp-env.sh && cmake -S . -B BUILD && cmake --build BUILD
#
# System packages come from apt-get, where this user may call it (root, or sudo that asks no password). LibTorch is taken
# from TORCH_ROOT, Torch_DIR, CMAKE_PREFIX_PATH or the torch package of python3; else the CPU part of the Python package
# is installed into BUILD/python, which belongs to this build alone. A second run finds everything in place and changes nothing.
# With LORAPP_CUDA=ON in the environment it is LibTorch with all its dependencies (about 2.5 GB), as a build with CUDA kernels needs it.
set -euo pipefail

readonly torch_version=2.11.0            # the version that the tests run with
readonly cuda_companions=("nvidia-cuda-runtime==13.0.*" "nvidia-cuda-cupti==13.0.*")  # libtorch_cpu.so of that package names them
readonly min_cmake=3.25 min_gcc=12 min_clang=14
# The build fetches these itself where the system has none (cmake/lorappDependencies.cmake).
readonly libraries=(libfmt-dev nlohmann-json3-dev libsentencepiece-dev libcli11-dev doctest-dev libbenchmark-dev
  libsimde-dev          # only tests the AVX-512 kernels on CPUs that lack it
  libcurl4-openssl-dev) # not fetched: without it lorapp downloads no models

source_dir=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
build_dir=${1:-$source_dir/build}
mkdir -p -- "$build_dir"
build_dir=$(cd -- "$build_dir" && pwd)
readonly source_dir build_dir venv=$build_dir/python notes=$build_dir/setup-notes.txt
log=$build_dir/setup.log

say() { printf 'setup: %s\n' "$*"; }

# die WHAT COMMAND: ends with the one command that helps.
die() {
  printf 'setup: %s\n' "$1" >&2
  printf 'setup: this one command is missing; run it, then start again:\n\n    %s\n\n' "$2" >&2
  exit 1
}

have() { command -v -- "$1" >/dev/null 2>&1; }

# version_ge A B: whether version A is B or newer.
version_ge() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; }

# --- system packages ---------------------------------------------------------------------------------------------

as_root=()
may_install=no
if have apt-get; then
  if [ "$(id -u)" = 0 ]; then
    may_install=yes
  elif have sudo && sudo -n true >/dev/null 2>&1; then
    may_install=yes
    as_root=(sudo -n)
  fi
fi

apt_ready=no
apt_install() {  # apt_install PACKAGE…: quiet; the log holds what apt-get said
  if [ "$apt_ready" = no ]; then
    "${as_root[@]}" apt-get update </dev/null >>"$log" 2>&1 || say "apt-get update failed; going on with the lists of before ($log)"
    apt_ready=yes
  fi
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" </dev/null >>"$log" 2>&1
}

# need WHAT PACKAGE…: installs the packages, or ends with the command that would.
need() {
  local what=$1
  shift
  if [ "$may_install" = yes ]; then
    say "installing $what: $*"
    apt_install "$@" || die "apt-get could not install $* (see $log)" "apt-get install $*"
  elif have apt-get; then
    die "$what is missing, and this user may not install it" "sudo apt-get install -y $*"
  else
    die "$what is missing, and this system has no apt-get" "the install command of your system's package manager for: $*"
  fi
}

compiler_is_new_enough() {  # compiler_is_new_enough CXX
  local version
  have "$1" || return 1
  version=$("$1" -dumpfullversion -dumpversion 2>/dev/null) || return 1
  if "$1" --version 2>/dev/null | grep -qi clang; then version_ge "$version" "$min_clang"; else version_ge "$version" "$min_gcc"; fi
}

find_compiler() {
  local candidate
  for candidate in ${CXX:+"$CXX"} g++ g++-15 g++-14 g++-13 g++-12 clang++; do
    if compiler_is_new_enough "$candidate"; then
      printf '%s' "$candidate"
      return
    fi
  done
  return 1
}

if [ -n "${CXX:-}" ] && ! compiler_is_new_enough "$CXX"; then
  die "CXX=$CXX is not a compiler of GCC >= $min_gcc or Clang >= $min_clang" "unset CXX"
fi
if ! compiler=$(find_compiler); then
  need "a C++ compiler" g++ libc6-dev
  if ! compiler=$(find_compiler); then
    need "a C++20 compiler" g++-$min_gcc  # a system whose default is older
    compiler=$(find_compiler) || die "no compiler of GCC >= $min_gcc or Clang >= $min_clang was found" "apt-get install g++-$min_gcc"
  fi
fi

cmake_is_new_enough() { have cmake && version_ge "$(cmake --version | sed -n '1s/[^0-9]*//p')" "$min_cmake"; }

[ -x "$venv/bin/cmake" ] && PATH=$venv/bin:$PATH
from_pip=()
if ! cmake_is_new_enough; then
  if [ "$may_install" = yes ]; then need "CMake" cmake; fi
  cmake_is_new_enough || from_pip+=("cmake>=$min_cmake,<4")
fi
if ! have ninja; then
  if [ "$may_install" = yes ]; then need "Ninja" ninja-build; else from_pip+=(ninja); fi
fi
missing=()
for package in pkg-config "${libraries[@]}"; do
  case $package in
    pkg-config) have pkg-config && continue ;;
    libcurl4-openssl-dev)  # another of its TLS variants does as well, and would have to go for this one
      compgen -G '/usr/include/curl/curl.h' >/dev/null || compgen -G '/usr/include/*/curl/curl.h' >/dev/null && continue ;;
  esac
  have dpkg-query && dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' && continue
  grep -qsx "no $package" "$notes" && continue
  missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$may_install" = yes ]; then
    say "installing libraries: ${missing[*]}"
    if ! apt_install "${missing[@]}"; then
      for package in "${missing[@]}"; do
        apt_install "$package" || { echo "no $package" >>"$notes"; say "this system has no $package; the build fetches what it holds, or does without"; }
      done
    fi
  elif [ ! -e "$notes" ]; then
    say "not installed, the build looks for each elsewhere and else fetches it: ${missing[*]}"
    printf 'no %s\n' "${missing[@]}" >>"$notes"
  fi
fi

# --- LibTorch ----------------------------------------------------------------------------------------------------

# With CUDA kernels a program loads all of LibTorch, else its CPU part.
part=libtorch_cpu.so from_torch=(--no-deps "torch==$torch_version") companions=(--no-deps "${cuda_companions[@]}") what="CPU part, about 0.55 GB"
if [ "${LORAPP_CUDA:-}" = ON ]; then
  part=libtorch_cuda.so from_torch=("torch==$torch_version") companions=("torch==$torch_version") what="with its dependencies, about 2.5 GB"
fi

is_torch() { [ -e "$1/lib/libtorch_cpu.so" ] && [ -e "$1/lib/$part" ] && [ -e "$1/lib/libc10.so" ] && [ -e "$1/include/torch/headeronly/version.h" ]; }

version_of() {
  sed -nE 's/^#define TORCH_VERSION_(MAJOR|MINOR|PATCH) ([0-9]+).*/\2/p' "$1/include/torch/headeronly/version.h" | paste -sd. -
}

# unresolved FOLDER: shared libraries that this part of LibTorch asks for and that are nowhere.
unresolved() { ldd "$1/lib/$part" 2>/dev/null | sed -nE 's/^[[:space:]]*([^ ]+) => not found.*/\1/p' | sort -u | paste -sd' ' -; }

# use_torch FOLDER WHERE: takes the folder if it is LibTorch, says so, and returns whether it did.
torch_root=
use_torch() {
  is_torch "$1" || return 1
  torch_root=$(cd -- "$1" && pwd)
  say "LibTorch $(version_of "$torch_root") in $torch_root ($2)"
  if [ "$(version_of "$torch_root")" != "$torch_version" ]; then
    say "note: the tests run with LibTorch $torch_version; this is another version"
  fi
}

find_torch() {
  local folder folders
  if [ -n "${TORCH_ROOT:-}" ]; then
    use_torch "$TORCH_ROOT" "TORCH_ROOT" && return
    die "TORCH_ROOT=$TORCH_ROOT does not hold lib/$part, lib/libc10.so and include/torch" "unset TORCH_ROOT"
  fi
  if [ -n "${Torch_DIR:-}" ]; then
    use_torch "$Torch_DIR/../../.." "Torch_DIR" && return
    die "Torch_DIR=$Torch_DIR is not share/cmake/Torch of a LibTorch folder" "unset Torch_DIR"
  fi
  IFS=';:' read -r -a folders <<<"${CMAKE_PREFIX_PATH:-}"
  for folder in "${folders[@]}"; do
    use_torch "$folder" "CMAKE_PREFIX_PATH" && return
    use_torch "$folder/torch" "CMAKE_PREFIX_PATH" && return
    use_torch "$folder/../.." "CMAKE_PREFIX_PATH" && return
  done
  for folder in "$venv"/lib/python3*/site-packages/torch; do
    use_torch "$folder" "this build's own" && return
  done
  if have python3; then
    # find_spec locates the package without importing it: an import takes seconds.
    folder=$(python3 -c 'import importlib.util as u
s = u.find_spec("torch")
print(s.submodule_search_locations[0] if s and s.submodule_search_locations else "")' 2>/dev/null || true)
    if [ -n "$folder" ] && is_torch "$folder"; then
      if [ "$(version_of "$folder")" = "$torch_version" ]; then
        use_torch "$folder" "the torch package of python3" && return
      fi
      say "python3 has torch $(version_of "$folder"); not used, the tests run with $torch_version (TORCH_ROOT=$folder would force it)"
    fi
  fi
  return 1
}

make_venv() {
  [ -x "$venv/bin/python" ] && return
  if ! have python3; then need "python3 (to install ${*:-LibTorch})" python3 python3-venv; fi
  if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    if [ "$may_install" = yes ] || ! python3 -m pip --version >/dev/null 2>&1; then need "the venv module of python3" python3-venv; fi
  fi
  rm -rf -- "$venv.tmp"
  if python3 -c 'import ensurepip' 2>/dev/null; then
    python3 -m venv "$venv" >>"$log" 2>&1 || die "python3 could not make an environment (see $log)" "python3 -m venv $venv"
  else
    python3 -m venv --without-pip "$venv" >>"$log" 2>&1 || die "python3 could not make an environment (see $log)" "python3 -m venv --without-pip $venv"
  fi
}

pip_install() {  # pip_install WHAT ARGUMENTS…
  local what=$1 pip
  shift
  make_venv "$what"
  pip=("$venv/bin/python" -m pip)
  "${pip[@]}" --version >/dev/null 2>&1 || pip=(python3 -m pip --python "$venv/bin/python")
  "${pip[@]}" install --disable-pip-version-check "$@" </dev/null >>"$log" 2>&1 ||
    die "$what could not be downloaded (see $log); where there is no network, TORCH_ROOT=FOLDER names a LibTorch that is there" "${pip[*]} install $*"
}

if [ ${#from_pip[@]} -gt 0 ]; then
  say "installing into $venv: ${from_pip[*]}"
  pip_install "CMake or Ninja" "${from_pip[@]}"
  PATH=$venv/bin:$PATH
fi

if ! find_torch; then
  say "installing LibTorch $torch_version ($what to download) into $venv"
  pip_install "LibTorch" "${from_torch[@]}"
  find_torch || die "the package torch $torch_version holds no LibTorch for $(uname -m)" "TORCH_ROOT=FOLDER-OF-LIBTORCH bash cmake/setup.sh"
fi
lost=$(unresolved "$torch_root")
if [ -n "$lost" ] && [[ $torch_root == "$venv"/* ]]; then
  say "installing the libraries that $part asks for: $lost"
  pip_install "LibTorch's companions" "${companions[@]}"
  lost=$(unresolved "$torch_root")
fi
if [ -n "$lost" ]; then
  die "LibTorch in $torch_root asks for libraries that are not there: $lost" "python3 -m pip install ${companions[*]}"
fi

# --- what the callers need -----------------------------------------------------------------------------------------

# A compile that includes LibTorch takes up to 2 GB; more jobs than the memory holds would only swap.
jobs=$(nproc)
memory_gb=$(awk '/^MemAvailable/ { print int($2 / 1048576) }' /proc/meminfo 2>/dev/null || echo 4)
[ "$jobs" -gt $((memory_gb / 2)) ] && jobs=$((memory_gb / 2))
[ "$jobs" -lt 1 ] && jobs=1

new=$build_dir/lorapp-env.sh.tmp
{
  echo "# Written by cmake/setup.sh: what CMake needs to know of this machine. Read it with: . FILE"
  printf 'export TORCH_ROOT=%q\n' "$torch_root"
  printf 'export CXX=%q\n' "$compiler"
  printf 'export CMAKE_GENERATOR=Ninja\n'
  printf 'export CMAKE_BUILD_PARALLEL_LEVEL="${CMAKE_BUILD_PARALLEL_LEVEL:-%s}"\n' "$jobs"
  [ -x "$venv/bin/cmake" ] || [ -x "$venv/bin/ninja" ] && printf 'export PATH=%q:"$PATH"\n' "$venv/bin"
  if have ccache; then
    echo 'export CMAKE_CXX_COMPILER_LAUNCHER="${CMAKE_CXX_COMPILER_LAUNCHER:-ccache}"'
    printf 'export CCACHE_SLOPPINESS=pch_defines,time_macros CCACHE_NOHASHDIR=1 CCACHE_BASEDIR=%q\n' "$source_dir"
  fi
} >"$new"
if cmp -s -- "$new" "$build_dir/lorapp-env.sh"; then
  rm -f -- "$new"
  say "everything is in place"
else
  mv -f -- "$new" "$build_dir/lorapp-env.sh"
  say "done; wrote $build_dir/lorapp-env.sh"
fi
