#!/usr/bin/env bash
# Builds the agents that hosts download: target/agents/sm-agent-linux-<amd64|arm64>, each for glibc 2.28 and newer
# (Debian 11, Ubuntu 20.04, CentOS 8). What is linked on a newer system does not start there; a static glibc would
# load the name service of the host into another C library. So zig links: it brings each C library's list of
# symbols. Both come as Python wheels (zig: MIT; cargo-zigbuild: MIT), from which files are only unpacked.
#   bash scripts/agents.sh [amd64|arm64 ...]        without a name: for this machine
set -euo pipefail
cd "$(dirname "$0")/.."
glibc=2.28
zig=0.17.0 zig_sha256=97079827064a7492cce5541ceb438ae8003ce1e54e399676da2d62fb7a5dc08b
zigbuild=0.24.0 zigbuild_sha256=484412e39e4c6039474535ce97ee75a22bab22d58233056f8ec8a8f9034bb957
cache=${XDG_CACHE_HOME:-$HOME/.cache}/mutt-security-manager
tools=$cache/tools/zig-$zig-$zigbuild
out=${CARGO_TARGET_DIR:-target}/agents
# Of this machine for this machine: the rust that is here has the standard library for no other.
case $(uname -m) in
  x86_64) here=amd64 ;;
  aarch64) here=arm64 ;;
  *) echo "agents are built on x86_64 and aarch64, not on $(uname -m)" >&2; exit 1 ;;
esac
[ $# -gt 0 ] || set -- "$here"
. scripts/need.sh
need pip3 "fetches the linker for agents" python3-pip

if [ ! -x "$tools/cargo-zigbuild" ]; then
  mkdir -p "$cache/tools"
  work=$(mktemp -d "$cache/tools/.zig.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  echo "Fetching zig $zig and cargo-zigbuild $zigbuild (103 MB) into $tools ..."
  pip3 download --quiet --disable-pip-version-check --no-cache-dir --no-deps --only-binary=:all: \
    --dest "$work" "ziglang==$zig" "cargo-zigbuild==$zigbuild"
  python3 - "$work" "$zig_sha256 $zigbuild_sha256" <<'PYTHON'
import glob, hashlib, os, sys, zipfile
work, known = sys.argv[1:]
for path in glob.glob(work + "/*.whl"):
    found = hashlib.sha256(open(path, "rb").read()).hexdigest()
    # Other machines than x86_64 have wheels of their own, whose sums are not kept here.
    if "x86_64" in path and found not in known.split():
        sys.exit(f"{path} is not the file it was: SHA-256 {found}")
    with zipfile.ZipFile(path) as wheel:
        for name in wheel.namelist():
            if name.startswith("ziglang/"):
                wheel.extract(name, work)
            elif name.endswith("/scripts/cargo-zigbuild"):
                open(work + "/cargo-zigbuild", "wb").write(wheel.read(name))
    os.remove(path)
PYTHON
  chmod 0755 "$work" "$work/ziglang/zig" "$work/cargo-zigbuild"
  # Renamed at the end, so that an interrupted run leaves nothing half done.
  rm -rf "$tools"
  mv "$work" "$tools"
  trap - EXIT
fi

mkdir -p "$out"
for name in "$@"; do
  case $name in
    amd64) target=x86_64-unknown-linux-gnu ;;
    arm64) target=aarch64-unknown-linux-gnu ;;
    *) echo "agents.sh: amd64 or arm64, not $name" >&2; exit 2 ;;
  esac
  if [ "$name" != "$here" ]; then
    echo "agents.sh: not built: $name (this machine is $here)" >&2
    exit 1
  fi
  CARGO_ZIGBUILD_ZIG_PATH=$tools/ziglang/zig CARGO_PROFILE_RELEASE_STRIP=symbols \
    "$tools/cargo-zigbuild" zigbuild --locked --release -p agent --bin sm-agent --target "$target.$glibc"
  built=${CARGO_TARGET_DIR:-target}/$target/release/sm-agent
  # What it asks of the C library stands in it by version.
  newest=$(grep -aoE 'GLIBC_[0-9.]+' "$built" | sort -Vu | tail -n 1)
  if [ "$(printf '%s\n' "$newest" "GLIBC_$glibc" | sort -V | tail -n 1)" != "GLIBC_$glibc" ]; then
    echo "agents.sh: $built needs $newest, not $glibc" >&2
    exit 1
  fi
  install -m 0755 "$built" "$out/sm-agent-linux-$name"
  (cd "$out" && sha256sum "sm-agent-linux-$name" >"sm-agent-linux-$name.sha256")
done
ls -l "$out"
