#!/usr/bin/env bash
# Makes an arm64 CPython that runs under qemu-user, with the packages the runtime needs, in $ROCKLEDGE_CACHE/arm.
# Debian packages are fetched with a private apt configuration, so that nothing on this machine changes.
set -euo pipefail

home="${ROCKLEDGE_CACHE:-$HOME/.cache/rockledge}/arm"
stamp="$(cat tools/arm-sysroot.sh requirements.txt | sha256sum | cut -d' ' -f1)"
for command in aarch64-linux-gnu-g++ qemu-aarch64; do
  command -v "$command" >/dev/null \
    || { echo "$command is missing: install gcc-aarch64-linux-gnu, g++-aarch64-linux-gnu and qemu-user" >&2; exit 1; }
done
if [ "$(cat "$home/stamp" 2>/dev/null)" = "$stamp" ]; then exit 0; fi
for command in apt-get dpkg-deb; do
  command -v "$command" >/dev/null || { echo "$command is missing: the aarch64 tests need Debian or Ubuntu" >&2; exit 1; }
done

echo "making an arm64 Python in $home"
rm -rf "$home"
mkdir -p "$home"/apt/{state/lists/partial,cache/archives/partial} "$home"/{debs,sysroot}
: > "$home/apt/status"
cat > "$home/apt/apt.conf" <<CONF
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
APT::Install-Recommends "false";
APT::Sandbox::User "$(id -un)";
Acquire::Languages "none";
Dir::State "$home/apt/state";
Dir::State::status "$home/apt/status";
Dir::Cache "$home/apt/cache";
Dir::Etc::sourcelist "$home/apt/sources.list";
Dir::Etc::sourceparts "$home/apt/none";
CONF
# The machine's own Debian sources, for the other architecture.
version=$(. /etc/os-release && echo "$VERSION_CODENAME")
mirror=$(grep -rhoE '[a-z]+://[^ ]*/(debian|ubuntu-ports|ubuntu)/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null \
  | head -1 | tr -d ' ') || true
[ -n "$mirror" ] || { echo "no Debian mirror found in the apt configuration of this machine" >&2; exit 1; }
case "$mirror" in *ubuntu*) keyring=ubuntu ;; *) keyring=debian ;; esac
keyring=/usr/share/keyrings/$keyring-archive-keyring.gpg
echo "deb [arch=arm64 signed-by=$keyring] $mirror $version main" > "$home/apt/sources.list"

apt() { apt-get -qq -c "$home/apt/apt.conf" "$@"; }
apt update
python=$(apt install -s python3-minimal 2>/dev/null | awk '/^Inst python3\.[0-9]+-minimal/{print $2}')
python=${python%-minimal}
packages=$(apt install -s "$python-minimal" "lib$python-stdlib" libstdc++6 libgomp1 | awk '/^Inst/{print $2}')
(cd "$home/debs" && apt download $packages)
for deb in "$home"/debs/*.deb; do dpkg-deb -x "$deb" "$home/sysroot"; done
rm -rf "$home/debs" "$home/apt"

# Wheels for that Python: what the runtime depends on, and what the tests that run there need.
.venv/bin/python -m pip --disable-pip-version-check install -q --target "$home/site" --only-binary :all: \
  --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux_2_17_aarch64 \
  --platform manylinux2014_aarch64 --python-version "${python#python}" --implementation cp -c requirements.txt \
  numpy tokenizers safetensors jinja2 rich pyyaml pytest pytest-timeout hypothesis

cat > "$home/python" <<RUN
#!/bin/sh
# The arm64 Python. Its import path is \$ARM_PYTHONPATH, then the installed wheels.
exec qemu-aarch64 -cpu cortex-a76 -L "$home/sysroot" \\
  -E LD_LIBRARY_PATH="$home/sysroot/lib/aarch64-linux-gnu:$home/sysroot/usr/lib/aarch64-linux-gnu" \\
  -E PYTHONHOME="$home/sysroot/usr" -E PYTHONPATH="\${ARM_PYTHONPATH:+\$ARM_PYTHONPATH:}$home/site" \\
  -E PYTHONDONTWRITEBYTECODE=1 "$home/sysroot/usr/bin/$python" "\$@"
RUN
chmod +x "$home/python"
"$home/python" -c 'import numpy, tokenizers, safetensors, platform; assert platform.machine() == "aarch64"'
echo "$stamp" > "$home/stamp"
