#!/usr/bin/env bash
# The installer and the units in a booted systemd (a Debian in systemd-nspawn, with Redis and PostgreSQL):
#   container.sh MUTTD_BINARY [CASES…]        some files of cases instead of all
# Needs root; the system is made once below ~/.cache and copied for each run. Exit code 77: cannot run here.
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/../.."
SOURCE=$PWD
BINARY=$(realpath "${1:?container.sh MUTTD_BINARY}"); shift
[ $# -gt 0 ] || set -- packaging/tests/container-cases.sh packaging/tests/container-interrupted.sh packaging/tests/container-instances.sh
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/mutt-security-manager/systemd-root
PACKAGES="systemd-sysv dbus curl logrotate iproute2 procps redis-server postgresql openssl nftables firewalld"
READY=$CACHE/ready-$(printf %s "$PACKAGES" | sha256sum | cut -c1-12)

not_run() { echo "NOT RUN: $*"; exit 77; }
[ "$(id -u)" = 0 ] || not_run "booting a container needs root"
[ "$(uname -s)" = Linux ] || not_run "systemd-nspawn is Linux only"
. scripts/need.sh
need debootstrap "the system that the installer is tested in" debootstrap
need systemd-nspawn "booting it" systemd-container

# ------------------------------------------------------------------ the system
mkdir -p "$CACHE"
exec 8>"$CACHE/lock"; flock 8
if [ ! -f "$READY" ]; then
  echo "Making a Debian in $CACHE (once) ..."
  [ -x "$CACHE/root/usr/bin/dpkg" ] || { rm -rf "$CACHE/root"; debootstrap --variant=minbase bookworm "$CACHE/root" >"$CACHE/log" 2>&1 || not_run "debootstrap failed, see $CACHE/log"; }
  # shellcheck disable=SC2086  # a list
  chroot "$CACHE/root" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $PACKAGES >>"$CACHE/log" 2>&1 || not_run "packages could not be installed, see $CACHE/log"
  chroot "$CACHE/root" apt-get clean
  # Only the tests that are about it start it.
  rm -f "$CACHE"/root/etc/systemd/system/multi-user.target.wants/firewalld.service "$CACHE"/root/etc/systemd/system/dbus-org.fedoraproject.FirewallD1.service
  touch "$READY"
fi
WORK=$(mktemp -d "$CACHE/run.XXXXXX")
cp -a --reflink=auto "$CACHE/root" "$WORK/root"
flock -u 8
R=$WORK/root
mkdir -p "$R/src" && cp -a "$SOURCE/packaging" "$R/src/packaging"
cp "$BINARY" "$R/src/muttd" && (cd "$R/src" && sha256sum muttd >muttd.sha256)
rm -f "$R/etc/machine-id" && touch "$R/etc/machine-id"

NSPAWN=""
finish() {
  local code=$?
  [ -z "$NSPAWN" ] || { kill -RTMIN+4 "$LEADER" 2>/dev/null || true; for _ in $(seq 50); do kill -0 "$NSPAWN" 2>/dev/null || break; sleep 0.2; done; kill -9 "$NSPAWN" 2>/dev/null || true; }
  rm -rf "$WORK" || true
  exit $code
}
trap finish EXIT
# shellcheck disable=SC2086  # DEPLOY_ENV is one word or none
in_c() { nsenter -t "$LEADER" -a env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C ${DEPLOY_ENV:-} "$@"; }
# Starts the container; again after its `systemctl reboot`, which ends systemd-nspawn.
boot() {
  systemd-nspawn -q -b -D "$R" --register=no --keep-unit --console=pipe --private-network </dev/null >"$WORK/console" 2>&1 &
  NSPAWN=$! LEADER=""
  for _ in $(seq 100); do
    LEADER=$(pgrep -P "$NSPAWN" | head -n 1 || true)
    # The first child is not always the one that stays.
    if [ -n "$LEADER" ] && in_c true 2>/dev/null; then break; fi
    kill -0 "$NSPAWN" 2>/dev/null || not_run "systemd-nspawn does not work here: $(tail -n 3 "$WORK/console")"
    sleep 0.1
  done
  [ -n "$LEADER" ] || not_run "the container did not start: $(tail -n 3 "$WORK/console")"
  for _ in $(seq 300); do case $(in_c systemctl is-system-running 2>/dev/null || true) in running|degraded) return 0 ;; esac; sleep 0.2; done
  not_run "systemd did not come up: $(tail -n 5 "$WORK/console")"
}
boot

# ------------------------------------------------------------------ saying how it went
CHECKS=0
ok() { CHECKS=$((CHECKS + 1)); echo "ok   $*"; }
fail() { echo "FAIL $*"; in_c tail -n 40 /var/log/mutt-deploy.log 2>/dev/null || true; in_c journalctl -n 40 --no-pager -o short 2>/dev/null || true; exit 1; }
same() { if [ "$2" = "$3" ]; then ok "$1"; else echo "  expected: $2"; echo "  found:    $3"; fail "$1"; fi; }
deploy() { in_c /src/packaging/deploy/mutt-deploy.sh "$@" >"$WORK/out" 2>&1 </dev/null; }
# deploys CODE WHAT ARGS…
deploys() {
  local want=$1 what=$2 code=0; shift 2
  deploy "$@" || code=$?
  [ "$code" = "$want" ] || { cat "$WORK/out"; echo "  exit code $code, expected $want"; fail "$what"; }
  ok "$what"
}
# Everything an installer could touch, byte for byte. Left out: the backups that useradd makes, and the log.
state() {
  # shellcheck disable=SC2016  # for the inner shell
  in_c bash -c '
    find /etc /opt /usr/local /var/lib/mutt /var/lib/mutt-deploy /var/log/mutt /run/mutt -xdev 2>/dev/null \
      ! -path "/etc/*-" ! -name .pwd.lock ! -name machine-id ! -path "/etc/ssl/*" ! -path "/run/mutt-deploy.lock" \
      \( -type f -printf "%y %m %U:%G %p " -exec sh -c "sha256sum <\"\$1\"" _ {} \; -o -printf "%y %m %U:%G %p %l\n" \) | sort -k4
    for u in mutt-ingestor mutt-alerter mutt-moog-forwarder mutt-webui mutt-remediation muttd mutt-alerter@1 mutt-alerter@2; do
      echo "$u $(systemctl is-enabled $u.service 2>/dev/null) $(systemctl is-active $u.service 2>/dev/null)"
    done; getent passwd mutt || true; getent group mutt || true'
}
unchanged() { state >"$WORK/after"; if ! diff -u "$WORK/$1" "$WORK/after" >"$WORK/diff"; then head -n 40 "$WORK/diff"; fail "$2"; fi; ok "$2"; }
pid_of() { in_c systemctl show -p MainPID --value "$1.service"; }
active() { [ "$(in_c systemctl is-active "$1.service" || true)" = active ]; }
within() { local n=$1; shift; for _ in $(seq $((n * 5))); do if "$@"; then return 0; fi; sleep 0.2; done; return 1; }
# Not a pipe: grep -q ends before journalctl does.
logged() { grep -q -- "$2" < <(in_c journalctl -u "$1" -o cat --no-pager); }
health() { in_c curl -fsS --max-time 5 "http://127.0.0.1:$1/health"; }
# shellcheck disable=SC2034  # for the cases
UNITS="mutt-ingestor mutt-alerter mutt-moog-forwarder mutt-webui mutt-remediation"
for cases in "$@"; do
  # shellcheck source=/dev/null
  . "$cases"
done
echo "all $CHECKS checks passed"
