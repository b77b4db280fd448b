#!/usr/bin/env bash
# Installs, upgrades, rolls back and removes muttd on RHEL 8/9, Rocky, Alma, Debian and Ubuntu.
#
# Always true here: everything is checked before anything is changed; the state before is kept (files,
# units, what was enabled and running) and comes back when a step fails; data is never rolled back and is
# removed only by `uninstall --purge`; no secret is printed or logged.
#
# Exit codes: 0 done, 1 failed and rolled back, 2 refused before anything was changed, 3 the rollback itself
# had problems (they are listed). A connection that breaks, an output that nobody reads and a full disk under the
# log are failures like others: a rollback needs neither.
set -Eeuo pipefail
export LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
umask 077

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly HERE
readonly PACKAGING=$HERE/..
readonly KEEP=/var/lib/mutt-deploy
# In the order in which they are started: the door for events last.
readonly SERVICES=(remediation webui moog-forwarder alerter ingestor)
readonly ENV_FILE=/etc/mutt/mutt.env
# What uninstall leaves of /etc/mutt.
readonly UNINSTALLED=/var/lib/mutt/uninstalled-etc
readonly HEALTH_SECONDS=${MUTT_DEPLOY_HEALTH_SECONDS:-60}

# What this script may change. Trees first, single files after.
readonly TREES=(/opt/mutt /etc/mutt /var/log/mutt /var/lib/mutt /run/mutt)
MANAGED=(
  /opt/mutt/bin/muttd /opt/mutt/bin/mutt-deploy.sh /usr/local/bin/muttd
  /etc/mutt/mutt.env /etc/mutt/muttd.toml
  /etc/logrotate.d/mutt /etc/sysctl.d/90-mutt.conf /etc/firewalld/services/mutt.xml
  /etc/systemd/system/mutt.target /etc/systemd/system/muttd.service "/etc/systemd/system/mutt-alerter@.service"
)
# Agents for hosts to install: beside muttd, which serves them from there.
readonly AGENTS=(sm-agent-linux-amd64 sm-agent-linux-arm64 sm-agent-linux-arm)
for agent in "${AGENTS[@]}"; do MANAGED+=("/opt/mutt/bin/$agent"); done
for service in "${SERVICES[@]}"; do MANAGED+=("/etc/systemd/system/mutt-$service.service"); done

usage() {
  cat <<'USAGE'
mutt-deploy.sh COMMAND [OPTIONS]
  install     install, or bring an installation (also of the original) to this version and configuration
  upgrade     replace the binary and the units; configuration and data stay; one service after the other
  rollback    go back to the state before the last install or upgrade; data stays
  status      versions, services, health
  uninstall   remove everything but the data; with --purge the data too
Options
  --binary FILE     muttd [default: muttd beside this script]; agents beside it (sm-agent-linux-amd64 and so on,
                    each with its .sha256) come along, for hosts to install
  --sha256 HEX      its checksum [default: from FILE.sha256]
  --unverified      take a binary without a checksum
  --unattended      ask nothing
  --yes             with rollback: also where MUTT was not installed before
  --config FILE     settings for a new mutt.env (NAME=value lines, as in mutt.env)
  --topology KIND   services: five services over Redis and PostgreSQL; single: one process, embedded stores
  --abandon-embedded  go from single to services although the embedded stores hold data: it is left behind
  --no-start        install only
  --no-firewall     leave the firewall alone
  --purge           with uninstall: data, logs and the user too
USAGE
}

LOG=/var/log/mutt-deploy.log
# Never fails: saying something is no reason to leave a host half changed.
say() {
  local line
  line="$(date -u +%FT%TZ) $*" || true
  { printf '%s\n' "$line"; } 2>/dev/null || true
  { printf '%s\n' "$line" >>"$LOG"; } 2>/dev/null || true
}
# Lines of standard input, indented.
show() { local line; while IFS= read -r line || [ -n "$line" ]; do say "  $line"; done; }
note() { say "note: $*"; }
refuse() { say "refused: $*" >&2; exit 2; }

COMMAND=${1:-}; [ $# -gt 0 ] && shift
BINARY=$HERE/muttd SHA256="" VERIFY=1 UNATTENDED=0 CONFIG="" TOPOLOGY="" START=1 FIREWALL=1 PURGE=0 YES=0 ABANDON=0
while [ $# -gt 0 ]; do
  case $1 in
    --binary) BINARY=${2:?--binary needs a file}; shift ;;
    --sha256) SHA256=${2:?--sha256 needs a checksum}; shift ;;
    --config) CONFIG=${2:?--config needs a file}; shift ;;
    --topology) TOPOLOGY=${2:?--topology needs services or single}; shift ;;
    --unverified) VERIFY=0 ;;
    --unattended) UNATTENDED=1 ;;
    --no-start) START=0 ;;
    --no-firewall) FIREWALL=0 ;;
    --purge) PURGE=1 ;;
    --yes) YES=1 ;;
    --abandon-embedded) ABANDON=1 ;;
    *) usage >&2; exit 2 ;;
  esac
  shift
done

STAGE="" SNAPSHOT="" CHANGING=0 TOUCHED=0
# Whatever ends this script: what was begun is finished or undone.
ended() {
  local code=$?
  trap '' HUP INT TERM PIPE
  trap - ERR EXIT
  set +e
  [ "$CHANGING" = 0 ] || go_back "$code"
  # Nothing was changed: what was kept for the way back is not needed.
  if [ "$TOUCHED" = 0 ]; then
    [ -z "$SNAPSHOT" ] || rm -rf -- "$SNAPSHOT" "$KEEP/changing"
    rmdir "$KEEP" 2>/dev/null
    case $code in 0|2) ;; *) say "refused: nothing was changed"; code=2 ;; esac
  fi
  [ -z "$STAGE" ] || rm -rf -- "$STAGE"
  exit "$code"
}
trap ended EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
# A reader that goes away, as in `… | head`.
trap '' PIPE

# ---------------------------------------------------------------- reading settings

# quoted VALUE: as a value of systemd's EnvironmentFile, which takes quotes and backslashes for its own.
quoted() {
  local value=$1
  if [[ $value =~ ^[A-Za-z0-9_./:,@%+=-]*$ ]]; then printf '%s' "$value"; return; fi
  value=${value//\\/\\\\}; value=${value//\"/\\\"}; value=${value//\$/\\\$}; value=${value//\`/\\\`}
  printf '"%s"' "$value"
}

# unquoted TEXT: what systemd makes of a value of one line.
# shellcheck disable=SC2016  # nothing is to expand
unquoted() {
  local value=$1
  value=${value#"${value%%[![:space:]]*}"}; value=${value%"${value##*[![:space:]]}"}
  case $value in
    \"*\") value=${value#\"}; printf '%s' "${value%\"}" | sed 's/\\\(["\\`$]\)/\1/g' ;;
    "'"*"'") value=${value#\'}; printf '%s' "${value%\'}" ;;
    *) printf '%s' "$value" | sed 's/\\\(.\)/\1/g' ;;
  esac
}

# env_value FILE NAME…: the value of the first of these variables that is set, without quotes.
env_value() {
  local file=$1 name value; shift
  [ -f "$file" ] || return 0
  for name in "$@"; do
    value=$(sed -n "s/^[[:space:]]*$name=//p" "$file" | tail -n 1)
    value=$(unquoted "$value")
    if [ -n "$value" ]; then printf '%s' "$value"; return 0; fi
  done
}

# read_listens MUTTD TOML FILE: keeps what will be listened on (protocol, address, setting), as muttd reads it.
read_listens() {
  timeout 60 "$1" check-config --listens --config "$2" --env-file "$3" >"$STAGE/listens" 2>/dev/null </dev/null || : >"$STAGE/listens"
}

# health_place SERVICE: where on this host it is asked for its health; nothing where it has no such listener.
health_place() {
  local setting address
  case $1 in
    ingestor) setting=ingest.http.listen ;;
    alerter|alerter@*) setting=alerter.health_listen ;;
    moog-forwarder) setting=forwarder.health_listen ;;
    webui) setting=webui.listen ;;
    remediation) setting=remediation.health_listen ;;
  esac
  address=$(awk -v s="$setting" '$1 == "tcp" && $3 == s { print $2; exit }' "$STAGE/listens")
  case $address in
    0.0.0.0:*) address=127.0.0.1:${address##*:} ;;
    "[::]:"*) address="[::1]:${address##*:}" ;;
  esac
  # As its unit sets it.
  case $address:$1 in ?*:alerter@*) address=${address%:*}:812${1#alerter@} ;; esac
  echo "$address"
}

# all_ports: protocol and port of everything that the services will listen on.
all_ports() {
  local unit
  awk '{ sub(/.*:/, "", $2); print $1, $2 }' "$STAGE/listens" | sort -u
  [ "$TOPOLOGY" = services ] || return 0
  while read -r unit; do printf 'tcp %s\n' "811${unit#mutt-alerter@}" "812${unit#mutt-alerter@}"; done < <(instances)
}

unit_names() { if [ "$TOPOLOGY" = single ]; then echo muttd; else printf 'mutt-%s\n' "${SERVICES[@]}"; fi; }
all_unit_names() { printf 'mutt-%s\n' "${SERVICES[@]}"; echo muttd; instances; }

# Further alerters, ours or the original's, that run or are enabled: mutt-alerter@1 …
instances() {
  {
    find /etc/systemd/system -path '*.wants/mutt-alerter@?*.service' -printf '%f\n' 2>/dev/null
    systemctl list-units --all --plain --no-legend 'mutt-alerter@*.service' 2>/dev/null | awk '$3 != "inactive" { print $1 }'
  } | sed -n 's/^\(mutt-alerter@..*\)\.service$/\1/p' | sort -u
}

# What is started and asked for its health, in order; instances as alerter@1 …
service_names() {
  local service
  for service in "${SERVICES[@]}"; do
    echo "$service"
    if [ "$service" = alerter ] && [ "$TOPOLOGY" = services ]; then instances | sed 's/^mutt-//'; fi
  done
}

# ---------------------------------------------------------------- checks that change nothing

# shellcheck disable=SC1091  # /etc/os-release is the system's
check_host() {
  [ "$(id -u)" = 0 ] || { echo "refused: run this as root" >&2; exit 2; }
  local os="" like="" version=""
  if [ -r /etc/os-release ]; then
    os=$(. /etc/os-release && echo "${ID:-}"); like=$(. /etc/os-release && echo "${ID_LIKE:-}")
    version=$(. /etc/os-release && echo "${VERSION_ID:-}")
  fi
  case " $os $like " in
    *" rhel "*|*" centos "*|*" rocky "*|*" almalinux "*|*" fedora "*)
      [ "${version%%.*}" -ge 8 ] || refuse "$os $version is too old; RHEL 8 or newer is needed" ;;
    *" debian "*|*" ubuntu "*) ;;
    *) refuse "this script knows RHEL, Rocky, Alma, Debian and Ubuntu, not ${os:-this system}" ;;
  esac
  [ -d /run/systemd/system ] || refuse "systemd does not run here"
  local tool
  for tool in curl tar sha256sum systemctl systemd-run useradd ss flock; do
    command -v "$tool" >/dev/null || refuse "the program $tool is missing (packages: curl tar coreutils systemd passwd/shadow-utils iproute util-linux)"
  done
}

check_binary() {
  [ -f "$BINARY" ] || refuse "there is no binary at $BINARY (--binary FILE)"
  if [ "$VERIFY" = 1 ]; then
    [ -n "$SHA256" ] || { [ ! -r "$BINARY.sha256" ] || SHA256=$(cut -d' ' -f1 <"$BINARY.sha256"); }
    [ -n "$SHA256" ] || refuse "no checksum for $BINARY: give --sha256, put $BINARY.sha256 beside it, or say --unverified"
    [ "$(sha256sum "$BINARY" | cut -d' ' -f1)" = "${SHA256,,}" ] || refuse "the checksum of $BINARY is wrong"
  fi
  install -m 0755 "$BINARY" "$STAGE/muttd"
  timeout 20 "$STAGE/muttd" --version >"$STAGE/version" 2>&1 </dev/null || refuse "$BINARY does not run here: $(head -c 300 "$STAGE/version")"
  say "binary: $(cat "$STAGE/version"), sha256 $(sha256sum "$STAGE/muttd" | cut -d' ' -f1)"
}

# Agents run as root on every host: none without a checksum of its own.
check_agents() {
  local agent file
  for agent in "${AGENTS[@]}"; do
    file=$(dirname "$BINARY")/$agent
    [ -f "$file" ] || continue
    if [ "$VERIFY" = 1 ]; then
      [ -r "$file.sha256" ] || refuse "no checksum for $file: put $file.sha256 beside it, or say --unverified"
      [ "$(sha256sum "$file" | cut -d' ' -f1)" = "$(cut -d' ' -f1 <"$file.sha256")" ] || refuse "the checksum of $file is wrong"
    fi
    install -m 0755 "$file" "$STAGE/$agent"
    say "agent for hosts: $agent, sha256 $(sha256sum "$file" | cut -d' ' -f1)"
  done
}

# Values that were never meant to be used. Names only are shown. `secret` and `password` are bad secrets and good
# names: Vault's usual mount is called `secret`.
check_placeholders() {
  local bad quote="[\"']?" name='^[[:space:]]*[A-Za-z0-9_]+='
  bad=$({
    grep -iE "$name$quote(changeme|change_me|dev-key-please-change|your[-_].*|<.*>)${quote}[[:space:]]*\$|$name.*example\.(com|org|net)" "$1"
    grep -iE "^[[:space:]]*[A-Za-z0-9_]*(PASS|PASSWORD|KEY|TOKEN|SECRET)(_CURRENT|_NEXT)?=$quote(secret|password)${quote}[[:space:]]*\$" "$1"
  } | cut -d= -f1 | tr -d ' \t' | paste -sd' ' || true)
  [ -z "$bad" ] || refuse "$2 still has placeholders or default secrets in: $bad"
}

# shellcheck disable=SC2016  # the inner shell expands them
answers() { timeout 5 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$1" "$2" 2>/dev/null; }

probe() {
  answers "$2" "$3" || refuse "$1 does not answer at $2:$3"
  say "$1 answers at $2:$3"
}

check_stores() {
  local file=$1 host port address sentinels
  host=$(env_value "$file" REDIS_HOST); port=$(env_value "$file" REDIS_PORT)
  sentinels=$(env_value "$file" REDIS_SENTINELS)
  if [ -n "$sentinels" ]; then
    # Where the master is, they say; one of them is enough to start.
    local sentinel found=""
    for sentinel in ${sentinels//,/ }; do
      port=${sentinel##*:}; [ "$port" != "$sentinel" ] || port=26379
      if answers "${sentinel%:*}" "$port"; then found=$sentinel; break; fi
    done
    [ -n "$found" ] || refuse "no Redis Sentinel of REDIS_SENTINELS answers"
    say "the Redis Sentinel $found answers"
  elif [ -n "$host" ]; then probe Redis "$host" "${port:-6379}"
  elif [ "$TOPOLOGY" = services ]; then
    refuse "five services need a Redis that they share: set REDIS_HOST, or use --topology single"
  fi
  host=$(env_value "$file" DB_HOST POSTGRES_HOST); port=$(env_value "$file" DB_PORT POSTGRES_PORT)
  # A folder is PostgreSQL's socket.
  if [[ $host == /* ]]; then [ -S "$host/.s.PGSQL.${port:-5432}" ] || refuse "PostgreSQL has no socket in $host"
  elif [ -n "$host" ]; then probe PostgreSQL "$host" "${port:-5432}"
  elif [ "$TOPOLOGY" = services ]; then
    refuse "five services need a PostgreSQL that they share: set DB_HOST, or use --topology single"
  fi
  address=$(env_value "$file" VAULT_ADDR)
  if [ -n "$address" ]; then
    host=${address#*://}; host=${host%%/*}
    # As muttd reads it.
    case $address in http://*) port=80 ;; *) port=443 ;; esac
    if [[ $host =~ :([0-9]+)$ ]]; then port=${BASH_REMATCH[1]}; host=${host%:*}; fi
    host=${host#[}; probe Vault "${host%]}" "$port"
  fi
}

# A port may be held by the services that are replaced, by nobody else.
check_ports() {
  local protocol port pids pid
  while read -r protocol port; do
    pids=$(ss "-ln${protocol:0:1}pH" "sport = :$port" | grep -o 'pid=[0-9]*' | cut -d= -f2 | sort -u || true)
    for pid in $pids; do
      grep -qE '/mutt(d|-[a-z-]+(@[^/]*)?)\.service' "/proc/$pid/cgroup" 2>/dev/null ||
        refuse "port $port/$protocol is taken by process $pid ($(cat "/proc/$pid/comm" 2>/dev/null))"
    done
  done < <(all_ports)
}

# What one process keeps in embedded stores, five services over Redis and PostgreSQL never look at.
check_embedded() {
  local installed=""
  [ ! -f "$KEEP/topology" ] || installed=$(cat "$KEEP/topology")
  if [ "$TOPOLOGY" != services ] || [ "$installed" = services ] || [ ! -f /var/lib/mutt/catalog.db ]; then return 0; fi
  if [ "$ABANDON" = 1 ]; then note "what is in the embedded stores in /var/lib/mutt is left behind, as --abandon-embedded says"; return 0; fi
  say "/var/lib/mutt holds the stores of a single process: rules, hosts, users and alerts (catalog.db), events and queues"
  # Through the running server only: root must not make files among mutt's.
  if systemctl is-active --quiet muttd.service; then timeout 60 "$STAGE/muttd" queue ls --config "$STAGE/muttd.toml" --env-file "$STAGE/mutt.env" --data-dir /var/lib/mutt </dev/null 2>&1 | show || true; fi
  refuse "the five services would not see any of it. Carry it over first (docs/operations-install.md, From one shape to the other), then say --abandon-embedded"
}

# Our instances take their ports from their number.
check_instances() {
  local unit
  [ "$TOPOLOGY" = services ] || return 0
  while read -r unit; do
    [[ $unit =~ ^mutt-alerter@[1-9]$ ]] || refuse "$unit: muttd's further alerters are mutt-alerter@1 to @9; disable and stop it first"
  done < <(instances)
}

# check-config with exactly the environment that systemd will give.
check_settings() {
  local file=$1 toml=$2 out=$STAGE/check-config
  if ! systemd-run --quiet --pipe --wait --collect -p EnvironmentFile="$file" \
    "$STAGE/muttd" check-config --config "$toml" --data-dir /var/lib/mutt >"$out" 2>&1 </dev/null; then
    show <"$out" >&2
    refuse "muttd does not accept this configuration"
  fi
  show <"$out"
  read_listens "$STAGE/muttd" "$toml" "$file"
}

# Where an original's settings mean something else with muttd.
takeover_notes() {
  local name
  has() { grep -qE "^[[:space:]]*$1=" "$2"; }
  has RATE_LIMIT_ENABLED "$1" || note "no RATE_LIMIT_ENABLED: the original then allowed 1000 events a minute for the whole site; muttd has none, unless INGEST_MAX_RATE is set"
  has METRICS_PORT_INGESTOR "$1" && note "METRICS_PORT_INGESTOR is not read: the ingestor's metrics are on its one port"
  has REMEDIATION_BATCH_SIZE "$1" && note "REMEDIATION_BATCH_SIZE is dead letters replayed a second, no longer per cycle"
  has POD_NAME "$1" && note "POD_NAME may be the same for all services of a host; instances of mutt-alerter@ get a name of their own"
  for name in BRPOPLPUSH_TIMEOUT HEARTBEAT_INTERVAL ALERTER_HEARTBEAT_INTERVAL JANITOR_INTERVAL CACHE_RELOAD_INTERVAL RULE_CACHE_TTL; do
    has "$name" "$1" && note "$name has no effect: rules act at once, and the work of a dead worker comes back by itself"
  done
  if has REDIS_HOST "$1" && ! has REDIS_TLS_ENABLED "$1"; then note "no REDIS_TLS_ENABLED: Redis is asked by TLS, as the original's default was"; fi
  if has DB_HOST "$1"; then
    has DB_TLS_ENABLED "$1" || has DB_SSL_MODE "$1" || note "no DB_TLS_ENABLED: PostgreSQL is asked by TLS, as the original's default was"
    note "the first start brings the database's schema up to date: DB_USER must own its tables then, and a pg_dump before is the way back (docs/postgresql.md)"
  fi
  has MUTT_TESTING "$1" && note "MUTT_TESTING has no effect"
  has VAULT_TOKEN "$1" && note "VAULT_TOKEN in a file does not expire with AppRole; prefer VAULT_ROLE_ID and a secret id file"
  return 0
}

# ---------------------------------------------------------------- the configuration

ask() {
  local variable=$1 question=$2 default=$3 answer
  [ -z "$(env_value "$STAGE/mutt.env" "$variable")" ] || return 0
  if [ "$UNATTENDED" = 0 ]; then
    read -r -p "$question [$default]: " answer || refuse "no answer"
    answer=${answer:-$default}
  else
    answer=$default
  fi
  [ -z "$answer" ] || printf '%s=%s\n' "$variable" "$(quoted "$answer")" >>"$STAGE/mutt.env"
}

ask_secret() {
  local variable=$1 question=$2 answer
  [ "$UNATTENDED" = 0 ] && [ -z "$(env_value "$STAGE/mutt.env" "$variable")" ] || return 0
  read -r -s -p "$question (empty: none): " answer || refuse "no answer"; echo
  [ -z "$answer" ] || printf '%s=%s\n' "$variable" "$(quoted "$answer")" >>"$STAGE/mutt.env"
}

# muttd's default is TLS; on this host a store has none, usually.
tls_default() { case $1 in localhost|127.*|::1|/*) echo false ;; *) echo true ;; esac; }

new_key() { head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=\n'; }

NEW_KEYS=""
# The mutt.env that will be in force, staged: what is there already, else what --config and answers say.
prepare_settings() {
  local from=""
  if [ -s "$ENV_FILE" ]; then from=$ENV_FILE; elif [ -s /opt/mutt/.env ]; then from=/opt/mutt/.env; fi
  if [ -n "$from" ]; then
    [ -z "$CONFIG" ] || note "$from is kept; --config is not used"
    say "taking over $from as it is"
    cp -p -- "$from" "$STAGE/mutt.env"
    takeover_notes "$STAGE/mutt.env"
  elif [ -z "$CONFIG" ] && [ -s "$UNINSTALLED/mutt.env" ]; then
    from=$UNINSTALLED/mutt.env
    say "taking over the settings of the installation before, $from"
    cp -p -- "$from" "$STAGE/mutt.env"
  else
    printf '# MUTT: settings and secrets. Mode 0600. Documented in docs/configuration.md.\n' >"$STAGE/mutt.env"
    if [ -n "$CONFIG" ]; then
      [ -r "$CONFIG" ] || refuse "cannot read $CONFIG"
      grep -vE '^[[:space:]]*(TOPOLOGY|FIREWALL)=' "$CONFIG" >>"$STAGE/mutt.env" || true
      [ -n "$TOPOLOGY" ] || TOPOLOGY=$(env_value "$CONFIG" TOPOLOGY)
      [ "$(env_value "$CONFIG" FIREWALL)" != no ] || FIREWALL=0
    fi
  fi
  choose_topology
  if [ -z "$from" ]; then
    if [ "$TOPOLOGY" = services ]; then
      [ -n "$(env_value "$STAGE/mutt.env" REDIS_SENTINELS)" ] || ask REDIS_HOST "Redis host" localhost
      ask REDIS_PORT "Redis port" 6379
      ask REDIS_TLS_ENABLED "Redis by TLS" "$(tls_default "$(env_value "$STAGE/mutt.env" REDIS_HOST)")"
      ask REDIS_USER "Redis user (empty: the default user)" ""
      ask_secret REDIS_PASS "Redis password"
      ask DB_HOST "PostgreSQL host" localhost
      ask DB_PORT "PostgreSQL port" 5432
      ask DB_NAME "Database" mutt
      ask DB_USER "Database user" mutt_app
      ask DB_TLS_ENABLED "PostgreSQL by TLS" "$(tls_default "$(env_value "$STAGE/mutt.env" DB_HOST)")"
      ask_secret DB_PASS "Database password"
    fi
    ask VAULT_ADDR "Vault address (empty: no Vault)" ""
    [ -z "$(env_value "$STAGE/mutt.env" VAULT_ADDR)" ] || ask VAULT_ROLE_ID "Vault role id" ""
    ask MOOG_WEBHOOK_URL "Moogsoft webhook (empty: alerts wait, or are only kept on a single host)" ""
    [ -z "$(env_value "$STAGE/mutt.env" MOOG_WEBHOOK_URL)" ] || ask_secret MOOG_API_KEY "Moogsoft key"
    ask LOG_LEVEL "Log level" INFO
    if [ -z "$(env_value "$STAGE/mutt.env" VAULT_ADDR)" ]; then
      local key value
      for key in INGEST_API_KEY WEBUI_API_KEY; do
        if [ -z "$(env_value "$STAGE/mutt.env" "$key")" ]; then
          value=$(env_value "$UNINSTALLED/mutt.env" "$key")
          if [ -z "$value" ]; then value=$(new_key); NEW_KEYS="$NEW_KEYS $key"; else say "the $key of the installation before is kept"; fi
          printf '%s=%s\n' "$key" "$(quoted "$value")" >>"$STAGE/mutt.env"
        fi
      done
    fi
  fi
  if [ -s /etc/mutt/muttd.toml ]; then cp -p /etc/mutt/muttd.toml "$STAGE/muttd.toml"
  elif [ "$from" = "$UNINSTALLED/mutt.env" ] && [ -s "$UNINSTALLED/muttd.toml" ]; then cp -p "$UNINSTALLED/muttd.toml" "$STAGE/muttd.toml"
  else cp "$PACKAGING/config/muttd.toml" "$STAGE/muttd.toml"; fi
}

choose_topology() {
  local answer default=single
  [ -z "$(env_value "$STAGE/mutt.env" REDIS_HOST REDIS_SENTINELS)" ] || default=services
  if [ -z "$TOPOLOGY" ] && [ "$UNATTENDED" = 0 ]; then
    read -r -p "services (five, over Redis and PostgreSQL) or single (one process, embedded stores) [$default]: " answer || refuse "no answer"
    TOPOLOGY=$answer
  fi
  TOPOLOGY=${TOPOLOGY:-$default}
  case $TOPOLOGY in services|single) ;; *) refuse "the topology is services or single, not '$TOPOLOGY'" ;; esac
}

# ---------------------------------------------------------------- the state before, and going back to it

# Whether muttd is in the state that DIR holds.
holds_muttd() { ! grep -qx /opt/mutt/bin/muttd "$1/absent" 2>/dev/null; }

snapshot() {
  install -d -m 0700 "$KEEP"
  SNAPSHOT=$(mktemp -d "$KEEP/before.XXXXXX")
  local path present=()
  for path in "${TREES[@]}" /opt/mutt/bin /etc/mutt/secrets /etc/mutt/certs "${MANAGED[@]}"; do
    if [ -d "$path" ] && [ ! -L "$path" ]; then stat -c '%u:%g %a %n' "$path" >>"$SNAPSHOT/directories"
    elif [ -e "$path" ] || [ -L "$path" ]; then present+=("${path#/}")
    else echo "$path" >>"$SNAPSHOT/absent"; fi
  done
  # firewall-cmd changes the zones.
  if [ -d /etc/firewalld/zones ]; then present+=(etc/firewalld/zones); fi
  if [ ${#present[@]} -gt 0 ]; then
    tar --numeric-owner -C / -cpf "$SNAPSHOT/files.tar" "${present[@]}"
  fi
  local unit
  while read -r unit; do
    # The state of a unit that does not exist is "not-found" and exit code 1.
    echo "$unit $(systemctl is-enabled "$unit.service" 2>/dev/null || true) $(systemctl is-active "$unit.service" 2>/dev/null || true)" >>"$SNAPSHOT/units"
  done < <(all_unit_names)
  echo "mutt.target $(systemctl is-enabled mutt.target 2>/dev/null || true) -" >>"$SNAPSHOT/units"
  if id mutt >/dev/null 2>&1; then : >"$SNAPSHOT/user"; fi
  if [ -f "$KEEP/topology" ]; then cp "$KEEP/topology" "$SNAPSHOT/topology"; fi
  # What it is, in words, for `rollback`.
  {
    date -u +%FT%TZ
    if [ -x /opt/mutt/bin/muttd ]; then timeout 10 /opt/mutt/bin/muttd --version </dev/null 2>/dev/null || echo "a muttd that does not run"
    elif [ -n "$(awk '$3 == "active"' "$SNAPSHOT/units")" ]; then echo "the original"
    else echo "no MUTT"; fi
  } | paste -sd' ' >"$SNAPSHOT/what"
  sync -f "$SNAPSHOT"
  # From here to the end of the change: an interrupted run finds its way back by this.
  echo "$SNAPSHOT" >"$KEEP/changing.new"; mv -f "$KEEP/changing.new" "$KEEP/changing"
  sync -f "$KEEP"
}

PROBLEMS=0
try() {
  local said code=0
  said=$("$@" 2>&1) || code=$?
  [ -z "$said" ] || { printf '%s\n' "$said" >>"$LOG"; } 2>/dev/null || true
  [ "$code" = 0 ] || { say "  problem: $*"; PROBLEMS=$((PROBLEMS + 1)); }
}

# restore DIR: the state that DIR holds, whatever there is now.
restore() {
  local from=$1 unit enabled active path owner mode
  PROBLEMS=0
  while read -r unit; do
    if systemctl cat "$unit.service" >/dev/null 2>&1; then try systemctl disable --now "$unit.service"; fi
    systemctl reset-failed "$unit.service" >/dev/null 2>&1 || true
  done < <({ all_unit_names; sed -n 's/^\(mutt-alerter@[^ ]*\) .*/\1/p' "$from/units"; } | sort -u)
  if systemctl cat mutt.target >/dev/null 2>&1; then try systemctl disable --now mutt.target; fi
  if command -v firewall-cmd >/dev/null && firewall-cmd --state >/dev/null 2>&1 && [ -f /etc/firewalld/services/mutt.xml ]; then
    firewall-cmd --quiet --permanent --remove-service=mutt >/dev/null 2>&1 || true
  fi
  # Files before the folders they are in.
  if [ -f "$from/absent" ]; then
    while read -r path; do
      case $path in
        /var/lib/mutt|/var/log/mutt|/run/mutt|/etc/mutt|/etc/mutt/*|/opt/mutt|/opt/mutt/*|/etc/*|/usr/local/bin/muttd) try rm -rf -- "$path" ;;
        *) say "  problem: $path is not ours to remove"; PROBLEMS=$((PROBLEMS + 1)) ;;
      esac
    done < <(sort -r "$from/absent")
  fi
  [ ! -f "$from/files.tar" ] || try tar --numeric-owner -C / -xpf "$from/files.tar"
  if [ -f "$from/directories" ]; then
    while read -r owner mode path; do
      [ -d "$path" ] || continue
      try chown "$owner" "$path"; try chmod "$mode" "$path"
    done <"$from/directories"
  fi
  if [ ! -f "$from/user" ] && id mutt >/dev/null 2>&1; then
    try userdel mutt
    if getent group mutt >/dev/null; then try groupdel mutt; fi
  fi
  if [ -f "$from/topology" ]; then try cp "$from/topology" "$KEEP/topology"; else rm -f "$KEEP/topology"; fi
  try systemctl daemon-reload
  if command -v firewall-cmd >/dev/null && firewall-cmd --state >/dev/null 2>&1; then try firewall-cmd --reload; fi
  while read -r unit enabled active; do
    case $unit in *.target) ;; *) unit=$unit.service ;; esac
    case $enabled in enabled) try systemctl enable "$unit" ;; esac
    # Bounded: what was there before may wait for a store that is away.
    case $active in active|activating|reloading) try timeout "$((HEALTH_SECONDS + 60))" systemctl start "$unit" ;; esac
  done <"$from/units"
  if [ "$PROBLEMS" -gt 0 ]; then say "rolled back with $PROBLEMS problem(s), see above and $LOG"; return 1; fi
  say "rolled back: files, units and what was enabled and running are as before"
}

# go_back CODE: undoes a change that failed or was interrupted, and ends. Nothing stops it but a kill.
go_back() {
  CHANGING=0
  case $1 in
    129|130|143) say "interrupted at step '$STEP'; going back to the state before" ;;
    *) say "step '$STEP' failed; going back to the state before" ;;
  esac
  if restore "$SNAPSHOT"; then
    rm -rf -- "$SNAPSHOT" "$KEEP/changing"; rmdir "$KEEP" 2>/dev/null
    [ -z "$STAGE" ] || rm -rf -- "$STAGE"
    exit 1
  fi
  say "the state before is in $SNAPSHOT; try again with: mutt-deploy.sh rollback"
  [ -z "$STAGE" ] || rm -rf -- "$STAGE"
  exit 3
}

# step NAME COMMAND…: MUTT_DEPLOY_FAIL_AT=NAME lets the step fail at its end (for tests of the rollback).
STEP=""
step() {
  STEP=$1; shift
  say "$STEP"
  "$@"
  if [ "${MUTT_DEPLOY_FAIL_AT:-}" = "$STEP" ]; then say "failing here as MUTT_DEPLOY_FAIL_AT asks"; false; fi
}

# ---------------------------------------------------------------- steps that change something

CHANGED=0
# put MODE OWNER FROM TO: only if it differs, and at once or not at all.
put() {
  if cmp -s "$3" "$4" && [ "$(stat -c %a "$4")" = "$(printf '%o' "0$1")" ]; then return 0; fi
  CHANGED=1
  install -m "$1" -o "${2%:*}" -g "${2#*:}" "$3" "$4.new.$$"
  mv -f "$4.new.$$" "$4"
}

make_user() {
  getent group mutt >/dev/null || groupadd --system mutt
  id mutt >/dev/null 2>&1 || useradd --system --gid mutt --shell /bin/false --home-dir /opt/mutt --no-create-home mutt
}

make_directories() {
  install -d -m 0755 -o mutt -g mutt /opt/mutt /opt/mutt/bin /var/log/mutt /run/mutt
  install -d -m 0700 -o mutt -g mutt /etc/mutt /etc/mutt/secrets /var/lib/mutt
  install -d -m 0755 -o mutt -g mutt /etc/mutt/certs
}

put_settings() {
  # As it was: systemd reads it as root, the service does not read it at all.
  put 0600 mutt:mutt "$STAGE/mutt.env" "$ENV_FILE"
  put 0644 mutt:mutt "$STAGE/muttd.toml" /etc/mutt/muttd.toml
  [ -z "$NEW_KEYS" ] || say "made new keys:$NEW_KEYS; they are in $ENV_FILE"
}

put_binary() {
  put 0755 root:root "$STAGE/muttd" /opt/mutt/bin/muttd
  put 0755 root:root "${BASH_SOURCE[0]}" /opt/mutt/bin/mutt-deploy.sh
  local agent
  for agent in "${AGENTS[@]}"; do
    if [ -f "$STAGE/$agent" ]; then put 0755 root:root "$STAGE/$agent" "/opt/mutt/bin/$agent"; fi
  done
  if [ "$(readlink /usr/local/bin/muttd 2>/dev/null || true)" != /opt/mutt/bin/muttd ]; then ln -sfn /opt/mutt/bin/muttd /usr/local/bin/muttd; fi
  if command -v restorecon >/dev/null; then restorecon -R /opt/mutt /etc/mutt /var/lib/mutt || true; fi
}

put_units() {
  local unit
  for unit in "$PACKAGING"/systemd/*.service "$PACKAGING"/systemd/*.target; do
    put 0644 root:root "$unit" "/etc/systemd/system/$(basename "$unit")"
  done
  systemctl daemon-reload
}

put_host_files() {
  install -d -m 0755 /etc/logrotate.d /etc/sysctl.d
  put 0644 root:root "$PACKAGING/logrotate/mutt" /etc/logrotate.d/mutt
  put 0644 root:root "$PACKAGING/sysctl/90-mutt.conf" /etc/sysctl.d/90-mutt.conf
  sysctl -q -p /etc/sysctl.d/90-mutt.conf 2>/dev/null || note "the kernel's buffers could not be raised here (a container?); see /etc/sysctl.d/90-mutt.conf"
}

open_firewall() {
  [ "$FIREWALL" = 1 ] || return 0
  if command -v firewall-cmd >/dev/null && firewall-cmd --state >/dev/null 2>&1; then
    put 0644 root:root "$PACKAGING/firewall/mutt.firewalld.xml" /etc/firewalld/services/mutt.xml
    firewall-cmd --quiet --reload
    firewall-cmd --quiet --permanent --add-service=mutt
    firewall-cmd --quiet --reload
    say "firewalld: the service mutt is let in (8080, 8090, 5514); health and metrics are not"
  elif command -v ufw >/dev/null && ufw status 2>/dev/null | grep -q '^Status: active'; then
    note "ufw is active; let MUTT in with: ufw allow 8080,8090,5514/tcp; ufw allow 5514/udp"
  else
    note "no firewall is active here; examples are in packaging/firewall"
  fi
}

enable_units() {
  local unit wanted
  wanted=$(unit_names)
  while read -r unit; do
    # A further alerter stays as enabled as it is.
    if [[ $unit == mutt-alerter@* ]] && [ "$TOPOLOGY" = services ]; then continue; fi
    if grep -qx "$unit" <<<"$wanted"; then systemctl enable --quiet "$unit.service"
    elif systemctl is-enabled --quiet "$unit.service" 2>/dev/null || systemctl is-active --quiet "$unit.service"; then
      systemctl disable --quiet --now "$unit.service"
    fi
  done < <(all_unit_names)
  systemctl enable --quiet mutt.target
}

# healthy SERVICE: within the time its unit is active and it says that it works. Both: the port might be answered
# by somebody who was faster. A receiver of alerts that is away is no fault of this host: alerts wait for it.
healthy() {
  local end unit=mutt-$1 state="" place status="" reason
  [ "$TOPOLOGY" != single ] || unit=muttd
  place=$(health_place "$1")
  end=$((SECONDS + HEALTH_SECONDS))
  while :; do
    if state=$(systemctl is-active "$unit.service"); then
      if [ -z "$place" ]; then say "$1 runs; it has no port for its health"; return 0; fi
      status=$(ask_health "$place")
      [ "$status" != 200 ] || { say "$1 is healthy"; return 0; }
      if only_receiver_away "$status"; then note "$1 works; the receiver of alerts does not answer, so alerts wait"; return 0; fi
    fi
    [ $SECONDS -lt $end ] || break
    sleep 0.5
  done
  case $status in
    ""|000) reason=$(tail -n 1 "$STAGE/curl" 2>/dev/null || true) ;;
    *) reason="it says $status: $(head -c 400 "$STAGE/health" 2>/dev/null | tr -d '\n' || true)" ;;
  esac
  say "$1 is not healthy after $HEALTH_SECONDS s; its unit is $state; $reason; its last lines:"
  journalctl -u "$unit" -n 5 --no-pager -o cat 2>/dev/null | cut -c1-300 | show
  return 1
}

# ask_health HOST:PORT: the status, 000 where nobody speaks HTTP; what was said is in $STAGE/health. By HTTPS where
# plain HTTP is not spoken: whose the certificate is, is not the question here.
ask_health() {
  local scheme status=000
  for scheme in http https; do
    : >"$STAGE/health"
    status=$(curl -gksS -o "$STAGE/health" -w '%{http_code}' --max-time 5 "$scheme://$1/health" 2>"$STAGE/curl") || true
    [ "${status:-000}" = 000 ] || break
  done
  echo "${status:-000}"
}

# only_receiver_away STATUS: that is all that $STAGE/health complains of.
only_receiver_away() { [ "$1" = 503 ] && grep -qE '"errors": *\["channel is not working"\]' "$STAGE/health"; }

# One after the other, the door for events last: when it opens, everything behind it works. Not waited for by
# systemctl: a service that waits for a store is patient, this script is not.
start_units() {
  [ "$START" = 1 ] || { say "not started (--no-start)"; return 0; }
  local service
  if [ "$TOPOLOGY" = single ]; then
    if [ "$CHANGED" = 1 ] || ! systemctl is-active --quiet muttd.service; then systemctl restart --no-block muttd.service; await_restart muttd; fi
    for service in "${SERVICES[@]}"; do healthy "$service"; done
  else
    while read -r service; do
      if [ "$CHANGED" = 1 ] || ! systemctl is-active --quiet "mutt-$service.service"; then
        systemctl restart --no-block "mutt-$service.service"; await_restart "mutt-$service"
      fi
      healthy "$service"
    done < <(service_names)
  fi
  systemctl start mutt.target
}

# Until the old process has gone: it would answer for the new one. Its drain has a bound of its own.
await_restart() {
  local state
  for _ in $(seq 1200); do
    state=$(systemctl is-active "$1.service") || true
    case $(systemctl show -p Job --value "$1.service"):$state in
      :*|0:*) return 0 ;;
      *:activating) return 0 ;;
    esac
    sleep 0.1
  done
  say "$1 does not stop"; return 1
}

# The state before becomes what `rollback` goes back to.
commit() {
  # Nothing that can fail the installation may come after this.
  CHANGING=0
  if [ "$CHANGED" = 1 ] || [ ! -d "$KEEP/previous" ]; then
    rm -rf -- "$KEEP/previous"; mv "$SNAPSHOT" "$KEEP/previous"
  else
    rm -rf -- "$SNAPSHOT"
  fi
  rm -rf -- "$KEEP/changing" "$KEEP"/before.*
}

# The state before a run that was killed, or whose rollback had problems.
interrupted() {
  local from
  [ -f "$KEEP/changing" ] || return 0
  from=$(cat "$KEEP/changing")
  [ ! -d "$from" ] || printf '%s' "$from"
}

refuse_interrupted() {
  [ -z "$(interrupted)" ] || refuse "an earlier run was interrupted and this host is half changed: first mutt-deploy.sh rollback"
}

begin_changes() {
  snapshot
  TOUCHED=1
  CHANGING=1
  echo "$TOPOLOGY" >"$KEEP/topology"
}

install_all() {
  refuse_interrupted
  check_binary
  check_agents
  prepare_settings
  check_placeholders "$STAGE/mutt.env" "the configuration"
  check_embedded
  check_stores "$STAGE/mutt.env"
  check_settings "$STAGE/mutt.env" "$STAGE/muttd.toml"
  check_instances
  check_ports
  begin_changes
  step user make_user
  step directories make_directories
  step settings put_settings
  step binary put_binary
  step units put_units
  step host-files put_host_files
  step firewall open_firewall
  step enable enable_units
  step start start_units
  commit
  say "installed ($TOPOLOGY). Next: sudo -u mutt muttd doctor --config /etc/mutt/muttd.toml --env-file $ENV_FILE --data-dir /var/lib/mutt"
}

upgrade_all() {
  if ! [ -x /opt/mutt/bin/muttd ] || ! [ -f "$KEEP/topology" ]; then refuse "nothing is installed here by this script; use install"; fi
  TOPOLOGY=$(cat "$KEEP/topology")
  refuse_interrupted
  check_binary
  check_agents
  [ -f "$ENV_FILE" ] || refuse "$ENV_FILE is missing"
  check_stores "$ENV_FILE"
  check_instances
  check_settings "$ENV_FILE" /etc/mutt/muttd.toml
  begin_changes
  step binary put_binary
  step units put_units
  step host-files put_host_files
  step start start_units
  commit
  say "upgraded to $(cat "$STAGE/version")"
}

# Undoes an interrupted run, if there is one; else the last install or upgrade that succeeded.
rollback_all() {
  local from answer
  from=$(interrupted)
  if [ -n "$from" ]; then say "an earlier run was interrupted; going back to the state before it; data stays"
  else
    from=$KEEP/previous
    [ -d "$from" ] || refuse "there is no state to go back to"
    say "going back to the state before the last install or upgrade; data stays"
  fi
  say "that is: $(cat "$from/what" 2>/dev/null || echo unknown)"
  if ! holds_muttd "$from"; then
    say "muttd was not installed then: this REMOVES it, and the keys and settings in /etc/mutt that were not there (a copy stays in /var/lib/mutt/uninstalled-etc)"
    if [ "$YES" = 0 ]; then
      [ "$UNATTENDED" = 0 ] || refuse "say --yes if that is what you want"
      read -r -p "Go there? Type yes: " answer || answer=no
      [ "$answer" = yes ] || refuse "nothing was changed"
    fi
    keep_settings
  fi
  TOUCHED=1
  # Data is never rolled back: what is absent in the state before stays if it holds any.
  if [ -f "$from/absent" ]; then
    sed -i '\#^/var/lib/mutt$#d; \#^/var/log/mutt$#d' "$from/absent"
    # Who owns the data must stay too.
    if [ -d /var/lib/mutt ]; then : >"$from/user"; fi
  fi
  # To the end, whoever hangs up.
  trap '' HUP INT TERM
  restore "$from" || exit 3
  rm -rf -- "$from" "$KEEP/changing"
  [ -x /opt/mutt/bin/muttd ] || rm -rf -- "$KEEP"
}

# Without its keys the data would be of no use.
keep_settings() {
  if [ -d /var/lib/mutt ] && [ -d /etc/mutt ]; then
    rm -rf "$UNINSTALLED"; cp -a /etc/mutt "$UNINSTALLED"
  fi
}

status_all() {
  local service unit place status
  if [ ! -x /opt/mutt/bin/muttd ]; then echo "muttd is not installed here"; return 0; fi
  [ ! -f "$KEEP/topology" ] || TOPOLOGY=$(cat "$KEEP/topology")
  /opt/mutt/bin/muttd --version
  echo "topology: ${TOPOLOGY:-unknown}; rollback to: $(cat "$KEEP/previous/what" 2>/dev/null || echo nothing)"
  [ -z "$(interrupted)" ] || echo "an earlier run was INTERRUPTED: mutt-deploy.sh rollback undoes it"
  while read -r unit; do
    printf '%-24s %-10s %s\n' "$unit" "$(systemctl is-active "$unit.service" 2>/dev/null || true)" "$(systemctl show -p StatusText --value "$unit.service")"
  done < <(unit_names; [ "$TOPOLOGY" != services ] || instances)
  STAGE=$(mktemp -d)
  read_listens /opt/mutt/bin/muttd /etc/mutt/muttd.toml "$ENV_FILE"
  while read -r service; do
    place=$(health_place "$service")
    [ -n "$place" ] || continue
    status=$(ask_health "$place")
    printf '%-24s %s\n' "$service" "$status $(if [ "$status" = 000 ]; then tail -n 1 "$STAGE/curl"; else head -c 300 "$STAGE/health"; fi)"
  done < <(service_names)
}

uninstall_all() {
  local unit path
  TOUCHED=1
  if [ "$UNATTENDED" = 0 ]; then
    read -r -p "Remove MUTT from this host$([ "$PURGE" = 0 ] || echo ', with all its data')? Type yes: " path || path=no
    [ "$path" = yes ] || refuse "nothing was removed"
  fi
  while read -r unit; do
    if systemctl cat "$unit.service" >/dev/null 2>&1; then systemctl disable --quiet --now "$unit.service" || true; fi
  done < <(all_unit_names)
  systemctl disable --quiet --now mutt.target 2>/dev/null || true
  # It would fail each night from now on.
  systemctl disable --quiet --now mutt-backup.timer 2>/dev/null || true
  if command -v firewall-cmd >/dev/null && firewall-cmd --state >/dev/null 2>&1; then
    firewall-cmd --quiet --permanent --remove-service=mutt || true
  fi
  [ "$PURGE" = 1 ] || keep_settings
  for path in "${MANAGED[@]}"; do rm -f -- "$path"; done
  rm -rf /etc/mutt /opt/mutt /run/mutt "$KEEP"
  rm -rf /etc/systemd/system/mutt-*.service.d /etc/systemd/system/muttd.service.d
  systemctl daemon-reload
  while read -r unit; do systemctl reset-failed "$unit.service" 2>/dev/null || true; done < <(all_unit_names)
  if command -v firewall-cmd >/dev/null && firewall-cmd --state >/dev/null 2>&1; then firewall-cmd --quiet --reload || true; fi
  if [ "$PURGE" = 1 ]; then
    rm -rf /var/lib/mutt /var/lib/mutt.before-restore-* /var/log/mutt
    rm -rf /etc/systemd/system/mutt-backup.service /etc/systemd/system/mutt-backup.timer /usr/local/bin/backup_mutt.sh
    systemctl daemon-reload
    if id mutt >/dev/null 2>&1; then userdel mutt; fi
    if getent group mutt >/dev/null; then groupdel mutt; fi
    echo "removed, with all data of this host; what is in Redis, in PostgreSQL and in backups stays there"
    rm -f "$LOG"; LOG=/dev/null
  else
    say "removed; the data, the settings it needs (uninstalled-etc) and its owner stay: /var/lib/mutt, user mutt (remove with --purge)"
  fi
}

# ---------------------------------------------------------------- main

# Sourced, by tests of the functions above.
[ "${BASH_SOURCE[0]}" = "$0" ] || return 0
case $COMMAND in
  install|upgrade|rollback|status|uninstall) ;;
  -h|--help|help) usage; exit 0 ;;
  *) usage >&2; exit 2 ;;
esac
if [ "$COMMAND" = status ]; then LOG=/dev/null TOUCHED=1; trap - PIPE; check_host; status_all; exit 0; fi
[ "$(id -u)" = 0 ] || { echo "refused: run this as root" >&2; exit 2; }
{ touch "$LOG" && chmod 0600 "$LOG"; } 2>/dev/null || LOG=/dev/null
check_host
exec 9>/run/mutt-deploy.lock
# What a run that was killed has started ends a moment later.
flock -w 10 9 || refuse "another mutt-deploy.sh is running"
# Not below /run or /tmp: programs may not be run from there on hardened hosts.
# What a run that was killed has left goes.
rm -rf -- /opt/.mutt-deploy.*
STAGE=$(mktemp -d /opt/.mutt-deploy.XXXXXX)
case $COMMAND in
  install) install_all ;;
  upgrade) upgrade_all ;;
  rollback) rollback_all ;;
  uninstall) uninstall_all; rm -f /run/mutt-deploy.lock ;;
esac
