#!/bin/sh
# Installs sm-agent, the agent of Security Manager, as a service of this host; --help says how.
#
# What always holds: everything comes from the control plane itself; nothing that came runs before its checksum and
# its signature were verified; until all is here and verified nothing on the host is changed, and what fails later is
# undone, so that an earlier version stays in place and running. Nothing is asked, standard input is not read. The
# token is on no command line that this script starts and in no file that others can read.
#
# Exit code: 0 done; 1 refused or failed, and the host is as it was; 3 installed and running, but not connected yet.
set -eu

usage() {
  cat <<'HELP'
Usage: install.sh [OPTION VALUE | OPTION=VALUE | NAME=VALUE]...

Options win over the environment, that over the settings of an installation that is already here.
  --token-file FILE     SM_TOKEN_FILE  file with the token that the control plane issued
  --token TOKEN         SM_TOKEN       the token itself; every user of this host can read command lines
  --ingest HOST[:PORT]  SM_INGEST_URL  the control plane (default localhost:9002)
  --org ORG             SM_ORG_ID      organisation (default: the token's)
  --host NAME           SM_HOST_ID     name of this host (default: the system's)
  --file PATTERNS       SM_FILE_PATH   log files to follow, with commas between them
  --ca FILE             SM_CA_FILE     authority to believe, as PEM; `system` for those this system believes.
                                       Not needed with a token that names its authority (.32 digits at its end)
  --insecure                           believe whoever answers, and send everything, the token too, unencrypted
  --binary FILE                        the agent from this file, not from the control plane; FILE.sha256, FILE.sig
                                       and ca.pem beside it are verified if they are there
  --install-dir DIR                    default /opt/security-manager
  --no-start                           install only
  --uninstall                          remove the agent, its settings, its key and what it has not sent yet
  --help
Without a token, what is installed is brought up to date.
HELP
}

say() { printf '%s\n' "$*"; }
warn() { printf '⚠️  %s\n' "$*" >&2; }
# Ends; what was changed is undone by the trap.
fail() { printf '❌ %s\n' "$*" >&2; exit 1; }
wrong() { printf '❌ %s\n\n' "$*" >&2; usage >&2; exit 1; }
# What others said, fit for a terminal.
shown() { head -c 300 | tr '\n' ' ' | tr -cd '[:print:]'; }

# ------------------------------------------------------------------------------------------ what is wanted

option() { # NAME VALUE
  case $2 in *[[:cntrl:]]*) wrong "$1: line ends and control characters are not allowed" ;; esac
  [ -n "$2" ] || return 0
  case $1 in
    --token) TOKEN=$2 ;;
    --token-file) TOKEN_FILE=$2 ;;
    --org) ORG=$2 ;;
    --host) HOST_ID=$2 ;;
    --ingest) INGEST=$2 ;;
    --file) FILES=$2 ;;
    --ca) CA=$2 ;;
    --binary) BINARY=$2 ;;
    --install-dir) DIR=$2 ;;
  esac
}

# The names of settings, as variables or as NAME=VALUE.
variable() { # NAME VALUE
  case $1 in
    SM_TOKEN) option --token "$2" ;;
    SM_TOKEN_FILE) option --token-file "$2" ;;
    SM_ORG_ID) option --org "$2" ;;
    SM_HOST_ID) option --host "$2" ;;
    SM_INGEST_URL) option --ingest "$2" ;;
    SM_FILE_PATH) option --file "$2" ;;
    SM_CA_FILE) option --ca "$2" ;;
    *) wrong "unknown argument: $1" ;;
  esac
}

read_arguments() {
  ACTION=install TOKEN='' TOKEN_FILE='' ORG='' HOST_ID='' INGEST='' FILES='' CA='' BINARY='' DIR='' INSECURE=0 START=1
  variable SM_TOKEN "${SM_TOKEN:-}"; [ -n "$TOKEN" ] || variable SM_TOKEN_FILE "${SM_TOKEN_FILE:-}"
  variable SM_ORG_ID "${SM_ORG_ID:-}"; variable SM_HOST_ID "${SM_HOST_ID:-}"; variable SM_INGEST_URL "${SM_INGEST_URL:-}"
  variable SM_FILE_PATH "${SM_FILE_PATH:-}"; variable SM_CA_FILE "${SM_CA_FILE:-}"
  # Not for the programs that are started from here.
  unset SM_TOKEN
  while [ $# -gt 0 ]; do
    case $1 in
      --help|-h) usage; exit 0 ;;
      --uninstall) ACTION=uninstall ;;
      --no-start) START=0 ;;
      --insecure) INSECURE=1 ;;
      --token|--token-file|--org|--host|--ingest|--file|--ca|--binary|--install-dir)
        [ $# -ge 2 ] || wrong "$1 needs a value"
        [ "$1" != --token ] || TOKEN_FILE=''
        option "$1" "$2"; shift ;;
      --token=*) TOKEN_FILE=''; option --token "${1#*=}" ;;
      --token-file=*|--org=*|--host=*|--ingest=*|--file=*|--ca=*|--binary=*|--install-dir=*) option "${1%%=*}" "${1#*=}" ;;
      SM_TOKEN=*) TOKEN_FILE=''; variable SM_TOKEN "${1#*=}" ;;
      SM_*=*) variable "${1%%=*}" "${1#*=}" ;;
      # It would be shown.
      sm_*) wrong "a token needs --token before it; better is --token-file" ;;
      *) wrong "unknown argument: ${1%%=*}" ;;
    esac
    shift
  done
}

# setting FILE NAME…: the first of these that the file sets, without quotes.
setting() {
  from=$1; shift
  [ -f "$from" ] || return 0
  for name in "$@"; do
    value=$(tr -d '\r' <"$from" | sed -n "1s/^$BOM//;s/^[[:space:]]*${name}[[:space:]]*=[[:space:]]*//p" | tail -n 1)
    case $value in
      \"*\") value=${value#?}; value=$(printf '%s' "${value%?}" | sed 's/\\\(["\\`$]\)/\1/g') ;;
      "'"*"'") value=${value#?}; value=${value%?} ;;
      *) value=$(printf '%s' "$value" | sed 's/[[:space:]]*$//;s/\\\(.\)/\1/g') ;;
    esac
    [ -z "$value" ] || { printf '%s' "$value"; return 0; }
  done
}

# quoted VALUE: as systemd and the agent read it.
quoted() {
  case $1 in
    *[!A-Za-z0-9_./:,@%+=-]*) printf '"%s"' "$(printf '%s' "$1" | sed 's/["\\`$]/\\&/g')" ;;
    *) printf '%s' "$1" ;;
  esac
}

# Sets DIR, CONF and what follows from them; of a running installation if none was named.
find_place() {
  [ -n "$DIR" ] || DIR=$(sed -n 's/^ExecStart=\(.*\)\/sm-agent -config .*/\1/p' "$UNIT" 2>/dev/null | head -n 1)
  DIR=${DIR:-/opt/security-manager}
  DIR=${DIR%/}
  # It stands in a unit, and parts of it are removed one day.
  case $DIR in
    *[!A-Za-z0-9/._-]*|*/..|*/../*|*//*) wrong "--install-dir: letters, digits and ._-/ only, and no .." ;;
    /bin|/boot|/dev*|/etc|/home|/lib*|/opt|/proc*|/root|/run*|/sbin|/sys*|/tmp|/usr|/usr/*bin|/usr/lib*|/var|/var/lib) wrong "--install-dir: $DIR belongs to the system" ;;
    /?*) ;;
    *) wrong "--install-dir: an absolute path" ;;
  esac
  CONF=$DIR/sm-agent.conf
  DATA=$(setting "$CONF" SM_DATA_DIR)
  case $DATA in *[!A-Za-z0-9/._-]*|[!/]*) fail "SM_DATA_DIR in $CONF: an absolute path of letters, digits and ._-/" ;; esac
  DATA=${DATA:-$DATA_DEFAULT}
}

# Nobody but root may be able to change what root will run.
check_place() {
  path=$DIR
  while [ "$path" != / ]; do
    path=$(dirname "$path")
    [ -e "$path" ] || continue
    mode=$(stat -Lc '%a' "$path")
    [ "$(stat -Lc '%u' "$path")" = 0 ] || fail "$path belongs to another user than root, who could replace the agent"
    case $mode in 1???) ;; *[2367]?|*[2367]) fail "$path can be written by others, who could replace the agent" ;; esac
  done
  [ ! -L "$DIR" ] || fail "$DIR is a link: name the folder itself with --install-dir"
}

# Fills in what was not said, and refuses what cannot work.
settle() {
  if [ -n "$TOKEN_FILE" ]; then
    [ -r "$TOKEN_FILE" ] || fail "the token file $TOKEN_FILE cannot be read"
    case $(stat -Lc '%a' "$TOKEN_FILE") in *[4567]) warn "$TOKEN_FILE can be read by every user; chmod 600 it, or remove it after this" ;; esac
    TOKEN=$(head -n 1 "$TOKEN_FILE" | tr -d '\357\273\277\r\n\t ')
    [ -n "$TOKEN" ] || fail "the token file $TOKEN_FILE is empty"
  fi
  NEW_TOKEN=$TOKEN
  TOKEN=${TOKEN:-$(setting "$CONF" SM_TOKEN TOKEN)}
  [ -n "$TOKEN" ] || wrong "a token is needed: --token-file, SM_TOKEN or --token"
  case $TOKEN in *[[:cntrl:]]*|*[[:space:]]*) fail "the token is damaged: it holds blanks or control characters" ;; esac
  # sm_<org>_<digits>_<secret>[.<fingerprint>]
  IN_TOKEN='' FINGERPRINT=''
  case $TOKEN in sm_*_[0-9]*_?*) IN_TOKEN=${TOKEN#sm_}; IN_TOKEN=${IN_TOKEN%%_*} ;; esac
  case $TOKEN in
    sm_*.*)
      FINGERPRINT=${TOKEN##*.}
      case $FINGERPRINT in *[!0-9a-f]*) FINGERPRINT=bad ;; esac
      [ ${#FINGERPRINT} = 32 ] || fail "the token is damaged: after its last dot there are 32 hexadecimal digits" ;;
  esac
  [ -z "$ORG" ] || [ -z "$IN_TOKEN" ] || [ "$ORG" = "$IN_TOKEN" ] || fail "--org is $ORG, but the token is of $IN_TOKEN"
  was=$(setting "$CONF" SM_ORG_ID ORG_ID)
  ORG=${ORG:-${IN_TOKEN:-$was}}
  [ -n "$ORG" ] || [ "$TOKEN" != sm_tok_demo123 ] || ORG=demo
  [ -n "$ORG" ] || wrong "this token names no organisation: --org is needed"
  # Records that wait here would be sent to the other.
  if [ -n "$was" ] && [ "$was" != "$ORG" ] && [ -d "$DATA/identity" ]; then
    fail "this host is enrolled with the organisation $was; to move it to $ORG, --uninstall first"
  fi
  INGEST=${INGEST:-$(setting "$CONF" SM_INGEST_URL INGEST_URL)}
  INGEST=${INGEST:-localhost:9002}
  INGEST=${INGEST#http://}; INGEST=${INGEST#https://}; INGEST=${INGEST%/}
  case $INGEST in
    *[!A-Za-z0-9._:%\[\]-]*|-*) wrong "--ingest: a name or address, and a port after a colon" ;;
    \[*\]:*) ;;
    \[*\]) INGEST=$INGEST:9002 ;;
    *:*:*) wrong "--ingest: an IPv6 address stands in brackets: [::1]:9002" ;;
    *:*) ;;
    *) INGEST=$INGEST:9002 ;;
  esac
  case ${INGEST##*:} in ''|*[!0-9]*|??????*) wrong "--ingest: the port is a number" ;; esac
  # Whom to believe.
  if [ "$INSECURE" = 1 ]; then TRUST=nobody
  elif [ "$CA" = system ]; then TRUST=system
  elif [ -n "$CA" ]; then TRUST="file"
  elif [ -n "$FINGERPRINT" ]; then TRUST=token
  else
    CA=$(setting "$CONF" SM_CA_FILE) TRUST="file"
    [ -n "$CA" ] || TRUST=system
  fi
  if [ "$TRUST" = file ]; then grep -q 'BEGIN CERTIFICATE' "$CA" 2>/dev/null || fail "$CA holds no certificate"; fi
  [ "$TRUST" != nobody ] || warn "--insecure: whoever answers for $INGEST is believed; its agent runs as root here, and the token and all records travel readable"
  [ -z "$BINARY" ] || [ -r "$BINARY" ] || fail "$BINARY cannot be read"
}

check_host() {
  [ "$(id -u)" = 0 ] || fail "this must run as root: the agent reads logs and processes of all users. Try again with sudo"
  [ "$(uname -s)" = Linux ] || fail "this installs the agent for Linux; $(uname -s) is not served"
  case $(uname -m) in
    x86_64|amd64) ARCH=amd64 ;;
    aarch64|arm64) ARCH=arm64 ;;
    armv7*|armv8l) ARCH=arm ;;
    *) fail "there is no agent for processors of the kind $(uname -m)" ;;
  esac
  for tool in base64 cmp cut date dirname grep head mktemp mv sed sha256sum stat tail timeout tr; do
    command -v "$tool" >/dev/null || fail "the program $tool is missing on this host"
  done
  if [ "$ACTION" = install ] && [ -z "$BINARY" ]; then
    command -v openssl >/dev/null || fail "openssl is missing on this host; without it no signature can be verified. Install it, or bring the agent with --binary"
  fi
  SYSTEMD=0
  if [ -d /run/systemd/system ] && command -v systemctl >/dev/null; then SYSTEMD=1; fi
}

# ------------------------------------------------------------------------------------------ from the control plane

# get PATH FILE BYTES_MAX [anyone]: one file, from whom $TRUST says; the reason of a failure is in $WHY.
get() {
  WHY=''
  : >"$STAGE/why"
  case ${4:-$TRUST} in
    token) from control-plane.muttd "$STAGE/roots" "$@" ;;
    # Certificates of other authorities have the real name; the agent asks for that too.
    file) from "${INGEST%:*}" "$CA" "$@" ;;
    system) from "${INGEST%:*}" '' "$@" ;;
    nobody|anyone) from "${INGEST%:*}" none "$@" ;;
  esac
}

from() { # NAME ROOTS PATH FILE BYTES_MAX
  server=$1 roots=$2 path=$3 file=$4 max=$5
  server=${server#\[}; server=${server%\]}
  status=000
  if curl --version >/dev/null 2>&1; then
    set -- -qsS --proto =https --noproxy '*' --connect-timeout 10 --speed-limit 500 --speed-time 20 --max-filesize "$max" \
      --retry 3 --retry-delay 1 --retry-max-time 15 --retry-connrefused
    case $server in *:*) url="https://[$server]:${INGEST##*:}$path" ;; *) url="https://$server:${INGEST##*:}$path" ;; esac
    case $roots in
      '') ;;
      none) set -- "$@" --insecure ;;
      # curl would look through the system's folder of authorities besides.
      *) set -- "$@" --cacert "$roots" --capath "$STAGE/empty" ;;
    esac
    [ "$server" != control-plane.muttd ] || set -- "$@" --connect-to "::$INGEST"
    # Of an answer without a length, curl itself takes any amount.
    status=$(ulimit -f $((max / 512 + 16)); curl "$@" -o "$file" -w '%{http_code}' "$url" </dev/null 2>"$STAGE/why") || status=000
  else
    case $server in
      *:*) set -- -verify_ip "$server" ;;
      *[!0-9.]*) set -- -verify_hostname "$server" -servername "$server" ;;
      *) set -- -verify_ip "$server" ;;
    esac
    # -verify_return_error: no request is sent to a server that is not believed.
    case $roots in
      '') set -- "$@" -verify_return_error ;;
      none) set -- ;;
      *) set -- "$@" -verify_return_error -CAfile "$roots" -no-CApath ;;
    esac
    printf 'GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$path" "$server" |
      timeout 300 openssl s_client -quiet -connect "$INGEST" "$@" 2>"$STAGE/why" | head -c $((max + 8192)) >"$STAGE/answer" || true
    status=$(sed -n '1s/^HTTP[^ ]* \([0-9]*\).*/\1/p' "$STAGE/answer")
    sed "1,/^$CR\$/d" "$STAGE/answer" >"$file" || status=000
    rm -f "$STAGE/answer"
  fi
  case ${status:-000} in
    200) return 0 ;;
    # curl says more below its first line.
    000) WHY=$( (grep '^curl: ' "$STAGE/why" || cat "$STAGE/why") | tail -n 1 | shown) ;;
    *) WHY="it answers $status: $(shown <"$file")" ;;
  esac
  return 1
}

# certificates FILE FOLDER: each of the first 8 certificates into a file of its own.
certificates() {
  rm -rf "$2"; mkdir "$2"
  number=0 inside=0
  while IFS= read -r line || [ -n "$line" ]; do
    line=${line%"$CR"}
    case $line in
      '-----BEGIN CERTIFICATE-----') number=$((number + 1)); [ $number -le 8 ] || break; inside=1; : >"$2/$number" ;;
    esac
    [ $inside = 0 ] || printf '%s\n' "$line" >>"$2/$number"
    case $line in '-----END CERTIFICATE-----') inside=0 ;; esac
  done <"$1"
}

# Keeps in $STAGE/roots the one certificate of a file that has the token's fingerprint.
find_root() {
  certificates "$1" "$STAGE/found"
  for one in "$STAGE"/found/*; do
    [ -f "$one" ] || continue
    if [ "$(grep -v -e '-----' "$one" | base64 -d 2>/dev/null | sha256sum | cut -c 1-32)" = "$FINGERPRINT" ]; then
      mv "$one" "$STAGE/roots"; return 0
    fi
  done
  return 1
}

# signed FILE SIGNATURE ROOTS: by the key of one of these authorities.
signed() {
  certificates "$3" "$STAGE/signers"
  for one in "$STAGE"/signers/*; do
    openssl x509 -in "$one" -noout -pubkey >"$STAGE/key" 2>/dev/null || continue
    if openssl dgst -sha256 -verify "$STAGE/key" -signature "$2" "$1" >/dev/null 2>&1; then return 0; fi
  done
  return 1
}

# verify NAME: the agent in the stage against its checksum and the signature of that, which names it.
verify() {
  signed "$STAGE/sum" "$STAGE/sig" "$STAGE/authority" ||
    fail "the signature of $1 is not of this control plane's authority: nothing was installed"
  sum=$(sha256sum <"$STAGE/sm-agent" | cut -c 1-64)
  [ "$(cat "$STAGE/sum")" = "$sum  $1" ] ||
    fail "the checksum of $1 is wrong, so it was damaged or changed on its way: nothing was installed. Try again"
}

# Brings the agent into the stage, verified.
bring_agent() {
  name=sm-agent-linux-$ARCH
  if [ -n "$BINARY" ]; then bring_local "$name"; else
    if [ "$TRUST" = token ]; then
      get /ca.pem "$STAGE/offered" 65536 anyone || fail "the control plane at $INGEST cannot be reached${WHY:+: $WHY}. Is --ingest right? Without a network, --binary"
      find_root "$STAGE/offered" || fail "what answers at $INGEST is not the control plane that issued the token: its authority has another fingerprint. Nothing was installed"
    fi
    # Again, from who has proven to be the one: after a change of authorities there are several.
    get /ca.pem "$STAGE/authority" 65536 || {
      [ "$TRUST" != system ] || warn "this token names no authority, so one is needed that this system believes; or --ca FILE with the control plane's, brought by a safe way; or --insecure, without encryption"
      fail "the control plane at $INGEST cannot be reached or is not believed${WHY:+: $WHY}"
    }
    say "📦 Fetching $name from $INGEST"
    get "/$name.sha256" "$STAGE/sum" 1024 || fail "no agent could be fetched from $INGEST: $WHY"
    get "/$name.sig" "$STAGE/sig" 1024 || fail "the agent's signature could not be fetched from $INGEST: $WHY"
    get "/$name" "$STAGE/sm-agent" 268435456 || fail "the agent could not be fetched from $INGEST: $WHY"
    verify "$name"
    say "🔏 Checksum and signature are right"
  fi
  chmod 0755 "$STAGE/sm-agent"
  VERSION=$(timeout 20 "$STAGE/sm-agent" --version </dev/null 2>"$STAGE/why" | shown) || true
  case $VERSION in "sm-agent "*) ;; *) fail "this agent does not run on this host: $(shown <"$STAGE/why")" ;; esac
}

bring_local() { # NAME
  cp "$BINARY" "$STAGE/sm-agent" || fail "$BINARY could not be copied to $DIR: is the disk full?"
  if [ -f "$BINARY.sig" ] && [ -f "$BINARY.sha256" ]; then
    ca=$(dirname "$BINARY")/ca.pem
    case $TRUST in
      file) cp "$CA" "$STAGE/authority" ;;
      token) if [ -f "$ca" ] && find_root "$ca"; then cp "$STAGE/roots" "$STAGE/authority"; fi ;;
      system|nobody) ;;
    esac
    if [ -f "$STAGE/authority" ] && command -v openssl >/dev/null; then
      cp "$BINARY.sha256" "$STAGE/sum"; cp "$BINARY.sig" "$STAGE/sig"
      verify "$1"
      say "🔏 Checksum and signature are right"
      return 0
    fi
  fi
  if [ -f "$BINARY.sha256" ]; then
    [ "$(cut -c 1-64 "$BINARY.sha256")" = "$(sha256sum <"$STAGE/sm-agent" | cut -c 1-64)" ] || fail "$BINARY does not have the checksum in $BINARY.sha256"
    warn "checked by checksum only: for the signature, $BINARY.sig and the control plane's ca.pem beside it are needed"
  else
    warn "$BINARY is taken as it is: there is no $BINARY.sha256"
  fi
}

# ------------------------------------------------------------------------------------------ what is put in place

# set_in NAME VALUE: in the settings of the stage; every other line stays as it is.
set_in() {
  [ "$(setting "$STAGE/conf" "$1")" != "$2" ] || return 0
  sed "/^[[:space:]]*$1[[:space:]]*=/d" "$STAGE/conf" >"$STAGE/conf.new"
  [ -z "$2" ] || printf '%s=%s\n' "$1" "$(quoted "$2")" >>"$STAGE/conf.new"
  mv "$STAGE/conf.new" "$STAGE/conf"
}

make_settings() {
  if [ -f "$CONF" ]; then
    # A last line without an end would swallow the next one.
    if [ -n "$(tail -c 1 "$CONF")" ]; then { sed "1s/^$BOM//" "$CONF"; echo; }; else sed "1s/^$BOM//" "$CONF"; fi | tr -d '\r' >"$STAGE/conf"
  else
    printf '# Settings of sm-agent. The token is a secret: only root may read this.\nSM_LOG_LEVEL=info\n' >"$STAGE/conf"
  fi
  set_in SM_ORG_ID "$ORG"
  set_in SM_TOKEN "$TOKEN"
  set_in SM_INGEST_URL "$INGEST"
  [ -z "$HOST_ID" ] || set_in SM_HOST_ID "$HOST_ID"
  [ -z "$FILES" ] || set_in SM_FILE_PATH "$FILES"
  case $TRUST in
    nobody) set_in SM_USE_TLS false ;;
    file) set_in SM_USE_TLS true; cp "$CA" "$STAGE/ca.pem"; set_in SM_CA_FILE "$DIR/ca.pem" ;;
    system) set_in SM_USE_TLS true; set_in SM_CA_FILE '' ;;
    # A file of before would say otherwise than a new token.
    token) set_in SM_USE_TLS true; [ -z "$NEW_TOKEN" ] || set_in SM_CA_FILE '' ;;
  esac
}

# Reads everything, writes below its data folder only. Nothing here may hide files from it: those that are followed
# can be anywhere.
make_unit() {
  cat <<END
# Written by the installer, which writes it anew: changes belong into \`systemctl edit sm-agent\`.
[Unit]
Description=Security Manager agent
# Not after the network is up: what happens before is kept and sent later.
After=local-fs.target systemd-journald.service
# Never given up.
StartLimitIntervalSec=0

[Service]
Type=simple
ExecStart=$DIR/sm-agent -config $CONF
Restart=always
RestartSec=5
# What was seen is written to the disk first.
TimeoutStopSec=30
KillMode=mixed
StateDirectory=sm-agent
StateDirectoryMode=0700
UMask=0077
LimitNOFILE=8192
# A core would hold the key.
LimitCORE=0

# Reads what others own and what processes are; hears the kernel's process events, packets for scans of ports, and
# (fanotify, for which there is no smaller one) who changes a file.
CapabilityBoundingSet=CAP_DAC_READ_SEARCH CAP_SYS_PTRACE CAP_NET_ADMIN CAP_NET_RAW CAP_AUDIT_READ CAP_SYS_ADMIN
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
ProtectClock=yes
ProtectControlGroups=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK AF_PACKET
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=~@clock @cpu-emulation @module @mount @obsolete @raw-io @reboot @swap
SystemCallErrorNumber=EPERM
END
  [ "$DATA" = "$DATA_DEFAULT" ] || printf 'ReadWritePaths=%s\n' "$DATA"
  printf '\n[Install]\nWantedBy=multi-user.target\nAlias=security-manager-agent.service\n'
}

# Every file that is written or replaced.
places() {
  printf '%s\n' "$DIR/sm-agent" "$CONF" "$DIR/ca.pem"
  [ "$SYSTEMD" = 0 ] || printf '%s\n' "$UNIT" "$OLD_UNIT"
}

# The unit of earlier installers; as a link it is the alias of ours.
has_old_unit() { [ -f "$OLD_UNIT" ] && [ ! -L "$OLD_UNIT" ]; }

# The state before, to go back to.
keep_before() {
  mkdir "$STAGE/before"
  number=0
  for place in $(places); do
    number=$((number + 1))
    if [ -e "$place" ] || [ -L "$place" ]; then cp -a "$place" "$STAGE/before/$number"; fi
  done
  WAS='' STOPPED=0
  [ "$SYSTEMD" = 1 ] || return 0
  for unit in sm-agent security-manager-agent; do
    [ $unit = sm-agent ] || has_old_unit || continue
    ! systemctl is-enabled --quiet $unit.service 2>/dev/null || WAS="$WAS enable:$unit"
    ! systemctl is-active --quiet $unit.service || WAS="$WAS restart:$unit"
  done
}

# Who runs undisturbed until here goes on.
# shellcheck disable=SC2317  # called by the trap
go_back() {
  CHANGING=0
  warn "going back to the state before"
  if [ "$SYSTEMD" = 1 ]; then
    [ "$STOPPED" = 0 ] || systemctl stop sm-agent.service 2>/dev/null
    case $WAS in *enable:sm-agent*) ;; *) systemctl disable --quiet sm-agent.service 2>/dev/null ;; esac
  fi
  number=0
  for place in $(places); do
    number=$((number + 1))
    if [ -e "$STAGE/before/$number" ] || [ -L "$STAGE/before/$number" ]; then
      mv -f "$STAGE/before/$number" "$place" || warn "$place could not be put back"
    else
      rm -f "$place"
    fi
    rm -f "$place.new"
  done
  [ "$SYSTEMD" = 1 ] || return 0
  systemctl daemon-reload
  systemctl reset-failed sm-agent.service 2>/dev/null
  for was in $WAS; do
    [ "${was%%:*}" = enable ] || [ "$STOPPED" = 1 ] || continue
    systemctl "${was%%:*}" --quiet "${was#*:}.service" || warn "systemctl ${was%%:*} ${was#*:} failed"
  done
}

# put MODE FROM TO: at once or not at all.
put() {
  if [ ! -L "$3" ] && cmp -s "$2" "$3"; then chmod "$1" "$3"; return 0; fi
  CHANGED=1
  rm -f "$3.new"
  cp "$2" "$3.new"
  chmod "$1" "$3.new"
  mv -f "$3.new" "$3"
}

put_in_place() {
  CHANGED=0 CHANGING=1
  chmod 0755 "$DIR"
  put 0755 "$STAGE/sm-agent" "$DIR/sm-agent"
  put 0600 "$STAGE/conf" "$CONF"
  if [ -f "$STAGE/ca.pem" ]; then put 0644 "$STAGE/ca.pem" "$DIR/ca.pem"; fi
  chown 0:0 "$DIR/sm-agent" "$CONF"
  if command -v restorecon >/dev/null; then restorecon -R "$DIR" 2>/dev/null || true; fi
  [ "$SYSTEMD" = 1 ] || return 0
  if has_old_unit; then
    say "♻️  Replacing the service security-manager-agent of an earlier installer"
    STOPPED=1
    systemctl disable --quiet --now security-manager-agent.service || true
    rm -f "$OLD_UNIT"
  fi
  put 0644 "$STAGE/unit" "$UNIT"
  systemctl daemon-reload
  systemctl enable --quiet sm-agent.service
  [ "$START" = 1 ] || return 0
  if [ "$CHANGED" = 1 ] || ! systemctl is-active --quiet sm-agent.service; then STOPPED=1; systemctl restart sm-agent.service; fi
  stays_up || fail "the service does not stay up; its last words: $(journal | tail -n 3 | shown)"
}

property() { systemctl show -p "$1" --value sm-agent.service; }
# What the process that runs now has said.
journal() { journalctl -q --no-pager -o cat "_SYSTEMD_INVOCATION_ID=$(property InvocationID)" 2>/dev/null; }

# A second without an end; a program that cannot run ends sooner.
stays_up() {
  pid=$(property MainPID)
  for _ in 1 2 3 4 5; do
    sleep 0.2
    [ "$(property ActiveState)" = active ] && [ "$(property MainPID)" = "$pid" ] && [ "$pid" != 0 ] || return 1
  done
}

# Waits until the process that runs now says that its session with the control plane stands, 20 seconds at most.
connected() {
  pid=$(property MainPID)
  end=$(($(date +%s) + 20))
  while [ "$(date +%s)" -lt "$end" ]; do
    if grep -q "\"pid\":$pid,.*\"standing\":\"connected\"" "$DATA/status.json" 2>/dev/null; then return 0; fi
    ! journal | grep -q 'the session stands' || return 0
    sleep 0.2
  done
  return 1
}

# ------------------------------------------------------------------------------------------ the two actions

begin() {
  umask 077
  if command -v flock >/dev/null && [ -d /run ]; then
    exec 9>/run/sm-agent-install.lock
    flock -n 9 || fail "another installation is running"
    LOCKED=1
  fi
}

# At every end: what is half done is undone, what is left in the stage goes.
# shellcheck disable=SC2317  # called by the trap
finish() {
  code=$?
  trap '' HUP INT TERM
  set +e
  [ "$CHANGING" = 0 ] || { [ "$code" != 0 ] || code=1; go_back; }
  if [ -n "$STAGE" ]; then rm -rf "$STAGE"; rmdir "$DIR" 2>/dev/null; fi
  [ "$LOCKED" = 0 ] || rm -f /run/sm-agent-install.lock
  exit "$code"
}

install_agent() {
  settle
  check_place
  case $INGEST in localhost:*|127.*) say "ℹ️  The control plane is taken to be this host ($INGEST); otherwise --ingest names it" ;; esac
  say "🛡️  Installing the agent of Security Manager for $ORG into $DIR"
  mkdir -p "$DIR" || fail "$DIR cannot be made"
  # Who may write here could change what root runs, already now.
  case $(stat -c '%u %a' "$DIR") in 0\ *[2367]?|0\ *[2367]|[1-9]*) warn "$DIR is now root's only: others could write there"; chown 0:0 "$DIR"; chmod go-w "$DIR" ;; esac
  # What runs that were killed have left.
  rm -rf "$DIR"/.install.*
  STAGE=$(mktemp -d "$DIR/.install.XXXXXX") || fail "$DIR cannot be written: is the disk full?"
  mkdir "$STAGE/empty"
  bring_agent
  make_settings
  make_unit >"$STAGE/unit"
  keep_before
  put_in_place
  CHANGING=0
  say "📁 $VERSION is in $DIR; its settings: $CONF"
  if [ "$SYSTEMD" = 0 ]; then
    warn "there is no systemd here, so nothing starts the agent. Let your service manager run: $DIR/sm-agent -config $CONF"
    return 0
  fi
  if [ "$START" = 0 ]; then say "Not started (--no-start): systemctl start sm-agent"; return 0; fi
  say "✅ Service is running"
  if ! connected; then
    warn "the agent runs and collects, but is not connected to $INGEST: $(journal | grep -E 'no connection|not connected|certificate|refused' | tail -n 1 | shown)"
    warn "it goes on trying; the reason: journalctl -u sm-agent"
    exit 3
  fi
  say "✅ Connectivity test passed"
  say "🎉 Installation completed successfully!"
  say "🛡️  Your server is now protected by Security Manager!"
}

uninstall_agent() {
  if [ "$SYSTEMD" = 1 ]; then
    for unit in sm-agent security-manager-agent; do systemctl disable --quiet --now "$unit.service" 2>/dev/null || true; done
  fi
  # One that was started by hand.
  for link in /proc/[0-9]*/exe; do
    case $(readlink "$link" 2>/dev/null) in "$DIR/sm-agent"|"$DIR/sm-agent (deleted)") pid=${link#/proc/}; kill "${pid%/exe}" 2>/dev/null || true ;; esac
  done
  rm -f "$UNIT" "$OLD_UNIT" "${UNIT%/*}"/multi-user.target.wants/sm-agent.service
  rm -rf "$UNIT.d" "$OLD_UNIT.d"
  if [ "$SYSTEMD" = 1 ]; then systemctl daemon-reload; systemctl reset-failed sm-agent.service security-manager-agent.service 2>/dev/null || true; fi
  # One of somebody's choice may hold other things.
  if [ "$DATA" = "$DATA_DEFAULT" ]; then rm -rf "$DATA"
  elif [ -d "$DATA/spool" ] && [ -d "$DATA/identity" ]; then rm -rf "${DATA:?}/spool" "$DATA/identity" "$DATA"/status.json*; rmdir "$DATA" 2>/dev/null || warn "$DATA holds other things and stays"; fi
  rm -f "$DIR/sm-agent" "$CONF" "$DIR/ca.pem"
  rm -rf "$DIR"/.install.*
  if [ -d "$DIR" ]; then rmdir "$DIR" 2>/dev/null || warn "$DIR holds other things and stays"; fi
  say "🗑️  The agent, its settings and its key are removed; its host stays listed at the control plane, and its lines in the journal stay"
}

main() {
  LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
  export LC_ALL PATH
  BOM=$(printf '\357\273\277') CR=$(printf '\r')
  UNIT=/etc/systemd/system/sm-agent.service OLD_UNIT=/etc/systemd/system/security-manager-agent.service
  DATA_DEFAULT=/var/lib/sm-agent STAGE='' CHANGING=0 LOCKED=0
  read_arguments "$@"
  check_host
  find_place
  trap finish EXIT
  trap 'exit 129' HUP; trap 'exit 130' INT; trap 'exit 143' TERM
  begin
  case $ACTION in
    install) install_agent ;;
    uninstall) uninstall_agent ;;
  esac
}

# Read to its last line before anything is done: half a script does nothing. What comes after it on standard input is
# nobody's.
{ main "$@" </dev/null; exit 0; }
