#!/usr/bin/env bash
# Makes sure that what every build needs is on this machine; installs it on Debian and Ubuntu.
set -euo pipefail

if ! command -v cargo >/dev/null; then
  echo "There is no Rust toolchain here. Install one (https://rustup.rs), then run this again." >&2
  exit 1
fi
if ! command -v cc >/dev/null; then
  echo "Installing a C compiler (SQLite and zstd are compiled in) ..."
  if ! command -v apt-get >/dev/null; then
    echo "Please install a C compiler (cc) and run this again." >&2
    exit 1
  fi
  as_root=""
  [ "$(id -u)" = 0 ] || as_root="sudo"
  $as_root apt-get update -qq
  $as_root apt-get install -y -qq gcc libc6-dev
fi
