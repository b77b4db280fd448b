# Sourced by container.sh: an agent on a host with systemd, by the one command, from a whole control plane that is
# another machine as far as the network goes. AGENT is the agent (default: beside muttd).
# shellcheck shell=bash disable=SC2154,SC2016  # WORK and the functions are container.sh's; inner shells expand

AGENT=${AGENT:-$(dirname "$BINARY")/sm-agent}
[ -x "$AGENT" ] || not_run "there is no agent at $AGENT"
need ip "the network between control plane and host" iproute2
PLANE=mutt-plane-$$
HERE=10.213.77.1
mkdir -p "$WORK/agents" "$WORK/plane"
NAME=sm-agent-linux-amd64
[ "$(uname -m)" = x86_64 ] || NAME=sm-agent-linux-arm64
serve_agent() { cp "$1" "$WORK/agents/new" && mv "$WORK/agents/new" "$WORK/agents/$NAME"; }
serve_agent "$AGENT"

# ------------------------------------------------------------------ two machines and the wire between them
ip netns add "$PLANE"
MUTTD=""
stop_plane() {
  [ -n "$MUTTD" ] || return 0
  # The shell that started it, and the program.
  kill "$(pgrep -P "$MUTTD" || echo "$MUTTD")" 2>/dev/null || true
  wait "$MUTTD" 2>/dev/null || true
  MUTTD=""
}
clean_plane() { stop_plane; ip netns delete "$PLANE" 2>/dev/null || true; }
trap 'clean_plane; finish' EXIT
in_p() { ip netns exec "$PLANE" "$@"; }
in_p ip link set lo up
wire() {
  in_p ip link delete wire0 2>/dev/null || true
  ip link add wire0 netns "$PLANE" type veth peer name host0 netns "$LEADER"
  in_p ip addr add "$HERE/30" dev wire0; in_p ip link set wire0 up
  in_c ip addr add 10.213.77.2/30 dev host0; in_c ip link set host0 up; in_c ip link set lo up
}
wire
muttd() { in_p env -i PATH="$PATH" HOME=/root MUTT_AGENT_LISTEN=0.0.0.0:9002 MUTT_AGENT_DOWNLOADS="$WORK/agents" "$BINARY" "$@" --data-dir "$WORK/plane"; }
start_plane() {
  muttd serve >>"$WORK/muttd.log" 2>&1 </dev/null &
  MUTTD=$!
  for _ in $(seq 300); do
    if in_p curl -kfsS --max-time 2 -o /dev/null https://127.0.0.1:9002/ca.pem 2>/dev/null; then return 0; fi
    kill -0 "$MUTTD" 2>/dev/null || { tail -n 20 "$WORK/muttd.log"; fail "the control plane runs"; }
    sleep 0.2
  done
  tail -n 20 "$WORK/muttd.log"; fail "the control plane answers"
}
start_plane
new_token() { muttd admin token create --org acme 2>>"$WORK/muttd.log"; }
muttd admin org create acme >>"$WORK/muttd.log" 2>&1 || { tail -n 20 "$WORK/muttd.log"; fail "an organisation can be made"; }
TOKEN=$(new_token) || { tail -n 20 "$WORK/muttd.log"; fail "a token can be made"; }
# kept WORDS: events with these words that the control plane has stored.
stored() {
  in_p curl -fsS --max-time 5 -G -H "X-API-KEY: $(cat "$WORK/plane/keys/webui_api_key")" --data-urlencode "text=$1" --data org=acme --data limit=1000 \
    http://127.0.0.1:8090/api/v2/events | grep -o '"id":"evt_' | wc -l
}
has_stored() { [ "$(stored "$1")" -ge "${2:-1}" ]; }

# Every file of the host but those that change by themselves.
files() {
  in_c bash -c 'find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /src -o -path /var/log -o -path /var/cache -o -path /var/tmp \
      -o -path /var/lib/systemd -o -path /var/lib/postgresql -o -path /var/lib/redis -o -path /root/token \) -prune -o -printf "%y %m %U:%G %s %p %l\n"
    find /var/log -xdev ! -path "/var/log/journal/*" ! -path "/var/log/postgresql/*" -print
    find /run /var/lib/systemd -xdev -name "*sm-agent*" -o -xdev -name "*security-manager*"
    systemctl list-unit-files --no-legend | grep -E "sm-agent|security-manager" || true
    getent passwd; nft list ruleset 2>/dev/null || true' | sort
}
# The command of the documentation, with standard input closed.
one_line() {
  in_c bash -c "curl -fsSk https://$HERE:9002/install.sh | bash -s -- $*" >"$WORK/out" 2>&1 <&-
}
# installs CODE WHAT ARGUMENTS…
installs() {
  local want=$1 what=$2 code=0; shift 2
  one_line "$@" || code=$?
  [ "$code" = "$want" ] || { cat "$WORK/out"; in_c journalctl -u sm-agent -n 30 --no-pager -o cat || true; tail -n 20 "$WORK/muttd.log"; fail "$what: exit code $code, expected $want"; }
  ok "$what"
}
says() { grep -qF -- "$1" "$WORK/out" || { cat "$WORK/out"; fail "it says: $1"; }; ok "it says: $1"; }
agent_pid() { in_c systemctl show -p MainPID --value sm-agent; }
files >"$WORK/clean"

# ------------------------------------------------------------------ install
printf '%s\n' "$TOKEN" >"$R/root/token"; chmod 600 "$R/root/token"
# A slow line: 20 Mbit/s.
in_p tc qdisc add dev wire0 root tbf rate 20mbit burst 64kb latency 400ms
begin=$(date +%s%N)
installs 0 "one command installs, standard input closed" --token-file /root/token --ingest "$HERE:9002"
took=$(( ($(date +%s%N) - begin) / 1000000 ))
in_p tc qdisc del dev wire0 root
for line in '✅ Service is running' '✅ Connectivity test passed' '🎉 Installation completed successfully!' '🛡️  Your server is now protected by Security Manager!'; do says "$line"; done
[ "$took" -le 60000 ] || fail "install in 60 s: $took ms"
ok "installed in $took ms over 20 Mbit/s (promised 60,000)"
within 30 has_stored 'agent alive' || fail "the first event arrives"
ok "the first event is stored $(( ($(date +%s%N) - begin) / 1000000 )) ms after the command began"
same "the unit is enabled" enabled "$(in_c systemctl is-enabled sm-agent)"
same "its old name is an alias" active "$(in_c systemctl is-active security-manager-agent)"
same "settings are root's" "600 root:root" "$(in_c stat -c '%a %U:%G' /opt/security-manager/sm-agent.conf)"
same "the program is root's" "755 root:root" "$(in_c stat -c '%a %U:%G' /opt/security-manager/sm-agent)"
same "the data is root's" "700 root:root" "$(in_c stat -c '%a %U:%G' /var/lib/sm-agent)"
SECRET=${TOKEN#sm_acme_}; SECRET=${SECRET%%.*}; SECRET=${SECRET##*_}
if in_c bash -c 'cat /proc/[0-9]*/cmdline' 2>/dev/null | tr '\0' ' ' | grep -q "$SECRET"; then fail "the token is on no command line"; fi
if in_c find / -xdev -type f -perm /044 ! -path '/proc/*' -size -1M -exec grep -l "$SECRET" {} + 2>/dev/null | grep -q .; then fail "the token is in no file that others can read"; fi
if in_c journalctl --no-pager -o cat | grep -q "$SECRET"; then fail "the token is not in the journal"; fi
ok "the token is on no command line, in no file that others can read, and not in the journal"
in_c systemd-analyze verify sm-agent.service >"$WORK/verify" 2>&1 || { cat "$WORK/verify"; fail "the unit is valid"; }
same "systemd has nothing to say about the unit" "" "$(grep -i sm-agent "$WORK/verify" || true)"
ok "$(in_c systemd-analyze security --no-pager sm-agent.service | tail -n 1)"
# What it is for: lines of the journal, files in /var/log and in /tmp, processes of others.
in_c bash -c 'echo "container-agent journal $((40+2))" | systemd-cat -t probe'
within 20 has_stored 'container-agent journal 42' || fail "a line of the journal arrives"
ok "a line of the journal arrives"
rss=$(in_c awk '/^VmRSS/ { print $2 }' "/proc/$(agent_pid)/status" 2>/dev/null || in_c ps -o rss= -p "$(agent_pid)")
ok "it takes $((rss / 1024)) MiB"
for path in /etc/x /opt/security-manager/x /var/log/x; do
  if in_c nsenter -t "$(agent_pid)" -m touch "$path" 2>/dev/null; then fail "the service cannot write $path"; fi
done
ok "the service cannot write outside its data"

# ------------------------------------------------------------------ the server is away, the machine starts again
key=$(in_c sha256sum /var/lib/sm-agent/identity/key.pem)
stop_plane
in_c bash -c 'echo "container-agent while away" | systemd-cat -t probe'
sleep 20
same "without a control plane it goes on" active "$(in_c systemctl is-active sm-agent)"
same "and was not started again" 0 "$(in_c systemctl show -p NRestarts --value sm-agent)"
in_c systemctl reboot || true
wait "$NSPAWN" 2>/dev/null || true
boot; wire
same "after a reboot it runs" active "$(in_c systemctl is-active sm-agent)"
start_plane
within 90 has_stored 'container-agent while away' || fail "what happened meanwhile arrives"
ok "what happened meanwhile arrives after the reboot"
same "with the same key" "$key" "$(in_c sha256sum /var/lib/sm-agent/identity/key.pem)"

# ------------------------------------------------------------------ upgrade
in_c sed -i 's/^SM_LOG_LEVEL=.*/SM_LOG_LEVEL=debug/' /opt/security-manager/sm-agent.conf
in_c systemctl restart sm-agent
cp "$AGENT" "$WORK/next"; printf 'n+1' >>"$WORK/next"; serve_agent "$WORK/next"
installs 0 "an upgrade needs no arguments"
same "the new one is in place" "$(sha256sum <"$WORK/next")" "$(in_c sha256sum </dev/null /opt/security-manager/sm-agent | sed 's/ .*/  -/')"
same "its key is the same" "$key" "$(in_c sha256sum /var/lib/sm-agent/identity/key.pem)"
same "a changed setting stays" SM_LOG_LEVEL=debug "$(in_c grep LOG_LEVEL /opt/security-manager/sm-agent.conf)"
pid=$(agent_pid)
installs 0 "the same again changes nothing"
same "and starts nothing again" "$pid" "$(agent_pid)"
printf '#!/bin/sh\n[ "$1" = --version ] && echo "sm-agent 99" && exit 0\nexit 1\n' >"$WORK/broken"; serve_agent "$WORK/broken"
installs 1 "a version that does not stay up is taken back"
says 'going back to the state before'
within 10 active sm-agent || fail "the version before runs"
same "the version before runs" "$(sha256sum <"$WORK/next")" "$(in_c sha256sum </dev/null /opt/security-manager/sm-agent | sed 's/ .*/  -/')"
printf '#!/bin/sh\nexit 1\n' >"$WORK/broken"; serve_agent "$WORK/broken"
pid=$(agent_pid)
installs 1 "one that cannot even say its version is not put in place"
same "the version before was not touched" "$pid" "$(agent_pid)"
serve_agent "$AGENT"
installs 1 "another organisation is refused" --token "sm_other_1_x.${TOKEN##*.}"

# ------------------------------------------------------------------ uninstall
one_line --uninstall || { cat "$WORK/out"; fail "uninstall"; }
files >"$WORK/after"
diff "$WORK/clean" "$WORK/after" >"$WORK/diff" || { cat "$WORK/diff"; fail "0 leftovers"; }
ok "uninstall leaves nothing: $(wc -l <"$WORK/clean") files and folders as before"

# ------------------------------------------------------------------ over an agent of the original
in_c bash -c 'mkdir -p /opt/security-manager; printf "#!/bin/sh\nexec sleep infinity\n" >/opt/security-manager/sm-agent; chmod 755 /opt/security-manager/sm-agent
  printf "[Unit]\nDescription=the original\nStartLimitInterval=300\nStartLimitBurst=5\n[Service]\nExecStart=/opt/security-manager/sm-agent -token sm_old_1_x\nRestart=always\n[Install]\nWantedBy=multi-user.target\n" >/etc/systemd/system/security-manager-agent.service
  systemctl daemon-reload; systemctl enable -q --now security-manager-agent'
serve_agent "$WORK/broken"
installs 1 "over the original: a failure" --token-file /root/token --ingest "$HERE:9002"
same "leaves the original running" "active enabled" "$(in_c systemctl is-active security-manager-agent) $(in_c systemctl is-enabled security-manager-agent)"
printf '#!/bin/sh\n[ "$1" = --version ] && echo "sm-agent 99" && exit 0\nexit 1\n' >"$WORK/broken"; serve_agent "$WORK/broken"
installs 1 "also one after its unit was replaced" --token-file /root/token --ingest "$HERE:9002"
same "leaves it running" "active enabled sleep" "$(in_c systemctl is-active security-manager-agent) $(in_c systemctl is-enabled security-manager-agent) $(in_c ps -o comm= -p "$(in_c systemctl show -p MainPID --value security-manager-agent)")"
serve_agent "$AGENT"
installs 0 "the original is replaced" SM_TOKEN="$(new_token)" SM_INGEST_URL="$HERE"
same "its name leads to the new one" sm-agent.service "$(in_c systemctl show -p Id --value security-manager-agent)"
one_line --uninstall || { cat "$WORK/out"; fail "uninstall"; }
files >"$WORK/after"; diff "$WORK/clean" "$WORK/after" >"$WORK/diff" || { cat "$WORK/diff"; fail "0 leftovers"; }
ok "and leaves nothing either"

# ------------------------------------------------------------------ the line that the control plane prints
line=$(muttd admin token create --org acme --gateway "$HERE:9002" 2>&1 >/dev/null | grep '^export')
in_c bash -c "${line/sudo --preserve-env=SM_TOKEN,SM_INGEST_URL sh/sh}" >"$WORK/out" 2>&1 <&- || { cat "$WORK/out"; fail "the line that the control plane prints installs"; }
says '✅ Connectivity test passed'
one_line --uninstall || { cat "$WORK/out"; fail "uninstall"; }

# ------------------------------------------------------------------ 20 times
slowest=0
for n in $(seq "${AGENT_ROUNDS:-20}"); do
  begin=$(date +%s%N)
  one_line --token="$(new_token)" --org=acme --host="web-$n" --ingest="$HERE:9002" || { cat "$WORK/out"; fail "round $n of 20"; }
  took=$(( ($(date +%s%N) - begin) / 1000000 )); [ "$took" -le "$slowest" ] || slowest=$took
  one_line --uninstall || { cat "$WORK/out"; fail "uninstall of round $n"; }
done
files >"$WORK/after"; diff "$WORK/clean" "$WORK/after" >"$WORK/diff" || { cat "$WORK/diff"; fail "0 leftovers"; }
ok "${AGENT_ROUNDS:-20} of ${AGENT_ROUNDS:-20} installations, the slowest in $slowest ms, and nothing is left"
clean_plane
