#!/usr/bin/env bash
# Puts what a build needs beside LibTorch and CUDA into one folder, to take to a machine without a network: bash cmake/bundle.sh FOLDER [--peers].
#  - doctest, fmt (its headers), nlohmann/json, CLI11 and sentencepiece, from LORAPP_BUNDLE_FROM or this machine's own. CMake finds them with
#    CMAKE_PREFIX_PATH=FOLDER; tests/gpu.sh and bench/gpu.sh read FOLDER as LORAPP_BUNDLE.
#  - with --peers: peers-VERSION.tar.xz, what `bash bench/gpu.sh peers` needs beside torch, for the Python VERSION in LORAPP_BUNDLE_PYTHON, by default
#    python3's; of bitsandbytes only the library for CUDA 13.0. pip downloads the packages.
# The folder has at most 40 MB.
set -euo pipefail
usage() { echo "bundle: usage: bash cmake/bundle.sh FOLDER [--peers]" >&2; exit 2; }
folder=
peers=
for argument in "$@"; do
  case $argument in
    --peers) peers=1 ;;
    -*) usage ;;
    *) [ -z "$folder" ] || usage; folder=$argument ;;
  esac
done
[ -n "$folder" ] || usage
if [ -e "$folder" ] && [ -n "$(ls -A "$folder" 2>/dev/null)" ]; then
  echo "bundle: $folder is there and not empty" >&2
  exit 1
fi
mkdir -p "$folder"
prefixes=(${LORAPP_BUNDLE_FROM:+"$LORAPP_BUNDLE_FROM"} /usr/local /usr)

# headers NAME FILE DEBIAN-PACKAGE: the prefix that has include/FILE, as `from`. FILE's folder is copied, or FILE where it has none.
headers() {
  for from in "${prefixes[@]}"; do
    [ -f "$from/include/$2" ] || continue
    mkdir -p "$folder/include"
    cp -RL "$from/include/${2%%/*}" "$folder/include/"
    echo "$folder: $1 from $from"
    return
  done
  echo "bundle: $2 was not found in $(printf '%s/include ' "${prefixes[@]}"); Debian has it in $3" >&2
  exit 1
}

# cmake_files NAME: what find_package(NAME) reads, as deep below the folder as below $from: it counts its way up to the headers.
cmake_files() {
  local found
  for found in "$from"/lib/cmake/"$1" "$from"/lib64/cmake/"$1" "$from"/lib/*/cmake/"$1" "$from"/share/cmake/"$1"; do
    [ -d "$found" ] || continue
    mkdir -p "$folder${found#"$from"}"
    cp -L "$found"/*.cmake "$folder${found#"$from"}/"
    return
  done
  echo "bundle: $from has the headers of $1 and no cmake/$1" >&2
  exit 1
}

headers doctest doctest/doctest.h doctest-dev
cmake_files doctest
headers fmt fmt/format.h libfmt-dev
cmake_files fmt
find "$folder" -name 'fmt-targets-*.cmake' -delete  # where the compiled library lies, which is not used
headers nlohmann/json nlohmann/json.hpp nlohmann-json3-dev
cmake_files nlohmann_json
headers CLI11 CLI/CLI.hpp libcli11-dev
cmake_files CLI11

# sentencepiece has a protobuf of its own within; a static library where there is one.
headers sentencepiece sentencepiece_processor.h libsentencepiece-dev
cp -L "$from/include/sentencepiece_trainer.h" "$folder/include/"
mkdir -p "$folder/lib"
for part in sentencepiece sentencepiece_train; do
  library=
  for found in "$from"/lib/lib$part.a "$from"/lib64/lib$part.a "$from"/lib/*/lib$part.a "$from"/lib/lib$part.so "$from"/lib64/lib$part.so "$from"/lib/*/lib$part.so; do
    if [ -z "$library" ] && [ -f "$found" ]; then library=$found; fi
  done
  if [ -z "$library" ]; then
    echo "bundle: $from has sentencepiece's headers and no lib$part; Debian has it in libsentencepiece-dev" >&2
    exit 1
  fi
  # A shared one under the name that programs will ask for, and the compiler under the other.
  name=$(basename "$library")
  soname=$(readelf -d "$library" 2>/dev/null | sed -n 's/.*(SONAME).*\[\(.*\)\]/\1/p')
  cp -L "$library" "$folder/lib/${soname:-$name}"
  [ -z "$soname" ] || [ "$soname" = "$name" ] || ln -s "$soname" "$folder/lib/$name"
done

pack_peers() {
  # peft and bitsandbytes, and what they import that torch does not bring. Together they were seen to work.
  local packages=(bitsandbytes==0.50.2 peft==0.21.2 transformers==5.23.0 accelerate==1.15.0 huggingface_hub==2.4.0 tokenizers==0.23.3 safetensors==0.8.0
    numpy==2.4.6 PyYAML==6.0.4 regex==2026.11.19 tqdm==4.70.1 packaging==26.4 psutil==7.2.2 httpx2==2.16.2 httpcore2==2.16.2 h11==0.16.0 anyio==4.16.0
    idna==3.20 truststore==0.10.5 filelock==4.3.1 fsspec==2026.9.0)
  local python=python3 version work platform platforms=()
  version=${LORAPP_BUNDLE_PYTHON:-$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')}
  for platform in manylinux_2_28 manylinux_2_27 manylinux_2_26 manylinux_2_24 manylinux_2_17 manylinux_2_12 manylinux_2_5 manylinux2014 manylinux2010 manylinux1; do
    platforms+=(--platform "${platform}_$(uname -m)")
  done
  work=$(mktemp -d)
  trap 'rm -rf "$work"' RETURN
  "$python" -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --only-binary=:all: --python-version "$version" --implementation cp \
    "${platforms[@]}" --target "$work/site" "${packages[@]}"
  find "$work/site/bitsandbytes" -name 'libbitsandbytes_*.so' ! -name libbitsandbytes_cuda130.so -delete
  rm -rf "$work/site/bin" "$work/site"/numpy/*/tests
  find "$work/site" \( -name __pycache__ -o -name '*.pyi' \) -prune -exec rm -rf {} +
  "$python" - "$work/site" "$folder/peers-$version.tar.xz" <<'PYTHON'
import sys, tarfile

with tarfile.open(sys.argv[2], "w:xz", preset=6) as archive:
    archive.add(sys.argv[1], ".")
PYTHON
  echo "$folder: ${packages[*]} for Python $version"
}
[ -z "$peers" ] || pack_peers

size=$(du -sb "$folder" | cut -f1)
echo "$folder: $size bytes"
if [ "$size" -gt 40000000 ]; then
  echo "bundle: that is more than 40 MB" >&2
  exit 1
fi
