#!/bin/bash
# Posts one SNMP trap to MUTT. snmptrapd starts it for each trap (`traphandle default …`) and writes
# the trap to its standard input: the sender's name, its address, then one variable per line, whose
# value may go on over further lines.
#
# A trap that MUTT does not take is tried again, then kept in the spool folder and logged. Each later
# trap that arrives takes some of the spool along; `snmptrap_to_mutt.sh --flush` (from cron) does so too.
#
# Environment, or lines NAME=VALUE in $MUTT_ENV_FILE (default /etc/mutt-feeders/snmptrapd.env, mode 0600):
#   MUTT_INGEST_URL           default http://127.0.0.1:8080/ingest
#   MUTT_INGEST_API_KEY       required, or
#   MUTT_INGEST_API_KEY_FILE  a file with the key in its first line
#   MUTT_CACERT               CA file for an https URL; the system's CAs without it
#   MUTT_SPOOL_DIR            default /var/spool/mutt/snmptrap; must belong to snmptrapd's user
#   MUTT_SPOOL_MAX            traps kept there at most, default 10000
#   MUTT_TRIES                default 3, one second between two
#   MUTT_TIMEOUT_SECONDS      of one try, default 5. snmptrapd waits for this script.
#   MUTT_TRUST_AGENT_ADDRESS  yes: the host is the agent-addr of an SNMPv1 trap, or snmpTrapAddress.0,
#                             where there is one (traps passed on by a relay)
set -uo pipefail
umask 077
PATH=/usr/sbin:/usr/bin:/sbin:/bin

MUTT_ENV_FILE=${MUTT_ENV_FILE:-/etc/mutt-feeders/snmptrapd.env}
# Read, not sourced: a file of settings is no program. The environment goes first.
if [ -r "$MUTT_ENV_FILE" ]; then
  while IFS='=' read -r name value || [ -n "$name" ]; do
    [[ $name =~ ^MUTT_[A-Z_]+$ ]] || continue
    value=${value%$'\r'}
    case $value in \"*\") value=${value#\"} value=${value%\"} ;; esac
    [ -n "${!name:-}" ] || printf -v "$name" '%s' "$value"
  done <"$MUTT_ENV_FILE"
fi
url=${MUTT_INGEST_URL:-http://127.0.0.1:8080/ingest}
key=${MUTT_INGEST_API_KEY:-}
if [ -z "$key" ] && [ -n "${MUTT_INGEST_API_KEY_FILE:-}" ]; then
  IFS= read -r key <"$MUTT_INGEST_API_KEY_FILE" || true
fi
spool=${MUTT_SPOOL_DIR:-/var/spool/mutt/snmptrap}
spool_max=${MUTT_SPOOL_MAX:-10000}
tries=${MUTT_TRIES:-3}
timeout=${MUTT_TIMEOUT_SECONDS:-5}
trust=${MUTT_TRUST_AGENT_ADDRESS:-no}
# Traps that one run takes out of the spool; snmptrapd waits meanwhile.
FLUSH_MAX=20

say() {
  logger -t snmptrap_to_mutt -p "daemon.$1" -- "$2" 2>/dev/null || printf '%s\n' "snmptrap_to_mutt: $2" >&2
}

# The trap on standard input as one line of JSON on standard output.
trap_to_json() {
  LC_ALL=C awk -v now="$1" -v trust="$2" '
    BEGIN {
      for (i = 1; i < 256; i++) ord[sprintf("%c", i)] = i
      oid_of["SNMPv2-MIB::coldStart"] = "1.3.6.1.6.3.1.1.5.1"
      oid_of["SNMPv2-MIB::warmStart"] = "1.3.6.1.6.3.1.1.5.2"
      oid_of["IF-MIB::linkDown"] = "1.3.6.1.6.3.1.1.5.3"
      oid_of["IF-MIB::linkUp"] = "1.3.6.1.6.3.1.1.5.4"
      oid_of["SNMPv2-MIB::authenticationFailure"] = "1.3.6.1.6.3.1.1.5.5"
      oid_of["SNMPv2-MIB::egpNeighborLoss"] = "1.3.6.1.6.3.1.1.5.6"
    }
    # A JSON string; bytes that are no UTF-8 become U+FFFD.
    function quote(text,   out, c, b, len, k, x, good) {
      out = ""
      while (text != "") {
        if (match(text, /^[ !#-\[\]-~]+/)) {
          out = out substr(text, 1, RLENGTH)
          text = substr(text, RLENGTH + 1)
          continue
        }
        c = substr(text, 1, 1)
        b = ord[c]
        len = 1
        if (c == "\\" || c == "\"") c = "\\" c
        else if (c == "\n") c = "\\n"
        else if (c == "\t") c = "\\t"
        else if (c == "\r") c = "\\r"
        else if (b < 128) c = sprintf("\\u%04x", b)
        else {
          len = b >= 194 && b <= 223 ? 2 : b >= 224 && b <= 239 ? 3 : b >= 240 && b <= 244 ? 4 : 0
          good = len > 0 && len <= length(text)
          for (k = 1; good && k < len; k++) {
            x = ord[substr(text, 1 + k, 1)]
            good = x >= 128 && x <= 191
            if (k == 1 && ((b == 224 && x < 160) || (b == 237 && x > 159) || (b == 240 && x < 144) || (b == 244 && x > 143))) good = 0
          }
          if (!good) len = 1
          c = good ? substr(text, 1, len) : "\\ufffd"
        }
        out = out c
        text = substr(text, len + 1)
      }
      return "\"" out "\""
    }
    function starts(text, with) { return substr(text, 1, length(with)) == with }
    # An OID as MUTT compares it: numbers, no leading dot. Empty for a name that is not known here.
    function numeric(text) {
      sub(/^OID: */, "", text)
      sub(/[ \t\r].*$/, "", text)
      sub(/^\./, "", text)
      if (starts(text, "iso.")) text = "1." substr(text, 5)
      else if (starts(text, "SNMPv2-SMI::enterprises.")) text = "1.3.6.1.4.1." substr(text, 25)
      else if (starts(text, "SNMPv2-SMI::snmpTraps.")) text = "1.3.6.1.6.3.1.1.5." substr(text, 23)
      else if (starts(text, "SNMPv2-MIB::snmpTraps.")) text = "1.3.6.1.6.3.1.1.5." substr(text, 23)
      else if (text in oid_of) text = oid_of[text]
      return text ~ /^[0-2](\.[0-9]+)+$/ ? text : ""
    }
    # The value of a line that is the variable with this number or name.
    function variable(line, number, name,   from) {
      sub(/^\./, "", line)
      if (starts(line, "iso.")) line = "1." substr(line, 5)
      from = starts(line, number ".0 ") ? length(number) + 4 : starts(line, name ".0 ") ? length(name) + 4 : 0
      if (!from) return ""
      line = substr(line, from)
      sub(/^= */, "", line)
      return line
    }
    NR == 1 { name = $0; sub(/[ \t\r]+$/, "", name); next }
    NR == 2 {
      # UDP: [10.1.1.1]:51234->[10.0.0.5]:162
      if (match($0, /\[[0-9A-Fa-f:.%a-z]+\]/)) device = substr($0, RSTART + 1, RLENGTH - 2)
      next
    }
    {
      # A community is a secret, and an event is no place for it.
      if (variable($0, "1.3.6.1.6.3.18.1.4", "SNMP-COMMUNITY-MIB::snmpTrapCommunity") != "") next
      if (oid == "" && (value = variable($0, "1.3.6.1.6.3.1.1.4.1", "SNMPv2-MIB::snmpTrapOID")) != "") {
        oid = numeric(value)
        named = value
      }
      if ((value = variable($0, "1.3.6.1.6.3.18.1.3", "SNMP-COMMUNITY-MIB::snmpTrapAddress")) ~ /^(IpAddress: )?[0-9.]+/) {
        sub(/^IpAddress: /, "", value)
        sub(/[^0-9.].*$/, "", value)
        if (value != "0.0.0.0" && value !~ /^127\./) agent = value
      }
      text = text (text == "" ? "" : "\n") $0
    }
    END {
      source = device
      if (trust == "yes" && agent != "") device = agent
      if (device == "") device = name == "" || name == "<UNKNOWN>" ? "unknown" : name
      if (text == "") text = "a trap without variables"
      # Not printf: an awk may bound what that formats.
      json = "{\"hostname\":" quote(device) ",\"timestamp\":\"" now "\",\"message\":" quote(text) ",\"source\":\"snmp\""
      if (oid != "") json = json ",\"trap_oid\":\"" oid "\""
      else if (named != "") json = json ",\"trap_name\":" quote(named)
      if (source != "") json = json ",\"source_ip\":" quote(source)
      if (agent != "") json = json ",\"agent_address\":" quote(agent)
      print json "}"
    }'
}

# Posts the JSON on standard input. 0: taken. 1: try again later. 2: MUTT will never take it.
post() {
  local code escaped
  escaped=${key//\\/\\\\}
  escaped=${escaped//\"/\\\"}
  # The key goes by a file descriptor: arguments are for everybody to see.
  code=$(curl --silent --show-error --output /dev/null --write-out '%{http_code}' \
    --max-time "$timeout" ${MUTT_CACERT:+--cacert "$MUTT_CACERT"} \
    --header 'Content-Type: application/json' --header 'Expect:' --data-binary @- \
    --config <(printf 'header = "X-API-KEY: %s"\n' "$escaped") "$url" 2>&1)
  case $code in
    2[0-9][0-9]) return 0 ;;
    400 | 413 | 415 | 422) problem="HTTP $code"; return 2 ;;
    [0-9][0-9][0-9]) problem="HTTP $code"; return 1 ;;
    *) problem=$(printf '%s' "$code" | tr '\n' ' ' | cut -c1-200); return 1 ;;
  esac
}

# Keeps standard input's event in a folder below the spool's. Whole, or not at all.
keep() {
  local folder=$1 json=$2 file kept
  mkdir -p "$folder" 2>/dev/null
  kept=$(find "$folder" -maxdepth 1 -name '*.json' 2>/dev/null | wc -l)
  if [ "$kept" -ge "$spool_max" ]; then
    say crit "the spool $folder is full ($kept); lost: $json"
    return 1
  fi
  # The names are in the order of arrival.
  file="$folder/$(date -u +%Y%m%dT%H%M%S.%N).$$"
  if printf '%s\n' "$json" >"$file.new" 2>/dev/null && mv "$file.new" "$file.json" 2>/dev/null; then
    say err "MUTT did not take a trap ($problem); kept as $file.json"
    return 0
  fi
  rm -f "$file.new" 2>/dev/null
  say crit "MUTT did not take a trap ($problem), and $folder cannot be written; lost: $json"
  return 1
}

# Posts what the spool holds, oldest first, $1 events at most. Only one run at a time.
flush() {
  local file
  [ -d "$spool" ] || return 0
  (
    flock -n 9 || exit 0
    n=0
    for file in "$spool"/*.json; do
      if [ ! -e "$file" ] || [ "$n" -ge "$1" ]; then break; fi
      post <"$file"
      case $? in
        0) rm -f "$file" ;;
        2) mkdir -p "$spool/refused" && mv "$file" "$spool/refused/" && say err "MUTT refuses ${file##*/} ($problem); moved to $spool/refused" ;;
        *) exit 1 ;;
      esac
      n=$((n + 1))
    done
  ) 9>"$spool/.lock"
}

problem=""
if [ "${1:-}" = --flush ]; then
  [ -n "$key" ] || { say err "MUTT_INGEST_API_KEY is not set"; exit 1; }
  flush "$spool_max"
  exit
fi

json=$(trap_to_json "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$trust")
if [ -z "$json" ]; then
  say crit "a trap could not be read: awk failed"
  exit 1
fi
if [ -z "$key" ]; then
  problem="MUTT_INGEST_API_KEY is not set"
  keep "$spool" "$json"
  exit
fi
for ((try = 1; ; try++)); do
  post <<<"$json"
  case $? in
    0)
      flush "$FLUSH_MAX"
      exit 0
      ;;
    2)
      keep "$spool/refused" "$json"
      exit 1
      ;;
  esac
  [ "$try" -lt "$tries" ] || break
  sleep 1
done
keep "$spool" "$json"
