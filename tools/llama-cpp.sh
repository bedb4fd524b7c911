#!/usr/bin/env bash
# Builds llama.cpp's command-line tools and its server once, natively, for side-by-side measurements.
# Source: the tree inside one pinned llama-cpp-python source package. Result: $ROCKLEDGE_CACHE/llama.cpp/bin.
set -euo pipefail

version=0.3.36
home="${ROCKLEDGE_CACHE:-$HOME/.cache/rockledge}/llama.cpp"
tools=(llama-quantize llama-imatrix llama-bench llama-batched-bench llama-perplexity llama-completion llama-server)
python=.venv/bin/python
[ -x "$python" ] || python=python3
cmake=.venv/bin/cmake
[ -x "$cmake" ] || cmake=cmake

missing=0
for tool in "${tools[@]}"; do [ -x "$home/bin/$tool" ] || missing=1; done
if [ "$missing" = 0 ] && [ "$(cat "$home/version" 2>/dev/null)" = "$version" ]; then
  echo "llama.cpp $version is already in $home/bin"
  exit 0
fi
for command in "$cmake" g++ "$python"; do
  command -v "$command" >/dev/null || { echo "$command is missing: run 'make native' first, it installs CMake" >&2; exit 1; }
done

mkdir -p "$home"
if [ "$(cat "$home/source.version" 2>/dev/null)" != "$version" ]; then
  echo "fetching the llama-cpp-python $version source package"
  download=$(mktemp -d "$home/download.XXXXXX")
  trap 'rm -rf "$download"' EXIT
  # pip asks a source package for its metadata, which needs its build backend: that is fetched into an
  # environment of its own and thrown away.
  "$python" -m pip --disable-pip-version-check download -q --no-deps --no-binary llama-cpp-python \
    "llama-cpp-python==$version" -d "$download"
  rm -rf "$home/source" "$home/build" "$home/bin"
  mkdir "$home/source"
  tar -xzf "$download/llama_cpp_python-$version.tar.gz" -C "$home/source" --strip-components=3 \
    "llama_cpp_python-$version/vendor/llama.cpp"
  echo "$version" > "$home/source.version"
fi

echo "building ${tools[*]} in $home"
"$cmake" -S "$home/source" -B "$home/build" --log-level=ERROR -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON \
  -DBUILD_SHARED_LIBS=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_SERVER=ON -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_UI=OFF \
  -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF > "$home/configure.log" 2>&1 \
  || { cat "$home/configure.log" >&2; exit 1; }
"$cmake" --build "$home/build" -j "$(nproc)" --target "${tools[@]}"
ln -sfn build/bin "$home/bin"
echo "$version" > "$home/version"
echo "llama.cpp $version is in $home/bin"
