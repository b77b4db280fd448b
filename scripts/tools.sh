#!/usr/bin/env bash
# Makes sure that what every build needs is on this machine; installs it on Debian and Ubuntu.
set -euo pipefail

if ! command -v cargo >/dev/null; then
  echo "There is no Rust toolchain here. Install one (https://rustup.rs), then run this again." >&2
  exit 1
fi
. "$(dirname "$0")/need.sh"
need cc "SQLite and zstd are compiled in" gcc libc6-dev
