#!/usr/bin/env bash
# Prepares HashiCorp Vault or OpenBao for MUTT Security Manager: a KV version 2 engine, the policy
# `mutt-service`, an AppRole, the secrets, and the file with the secret id. Run it as an
# administrator, as often as you like: what is there stays, what you give is changed.
#
# It prints no secret, and hands none to a program as an argument, where `ps` would show it.
#
#   VAULT_ADDR, VAULT_TOKEN     whom to talk to, and an administrator's token (or log in before)
#   VAULT_CACERT                the CA of its certificate, where the system does not know it
#   VAULT_MOUNT_PATH            where the KV engine is (default: secret)
#   VAULT_SECRETS_PATH          the secret in it (default: secret/mutt; a leading mount is taken off)
#   VAULT_ROLE                  name of the AppRole (default: mutt)
#   VAULT_POLICY                name of the policy (default: mutt-service)
#   VAULT_SECRET_ID_FILE        write a secret id there if the file is not there yet (default: do not)
#   VAULT_NEW_SECRET_ID=1       write a new one although it is there
#   TOKEN_TTL, TOKEN_MAX_TTL    life of a token (default: 24h and 72h)
#
# The secrets are taken from variables of their names (INGEST_API_KEY, WEBUI_API_KEY, MOOG_API_KEY,
# DB_USER, DB_PASS_CURRENT, DB_PASS_NEXT, REDIS_PASS_CURRENT, REDIS_PASS_NEXT). On a terminal it asks
# for those that have none; an empty answer leaves what is there. INGEST_API_KEY and WEBUI_API_KEY
# are made at random where nobody gives them and none is there.
set -euo pipefail
set +x
umask 077

fail() {
  echo "vault-init: $*" >&2
  exit 1
}

if command -v bao >/dev/null; then
  cli=bao
elif command -v vault >/dev/null; then
  cli=vault
else
  fail "neither \`vault\` nor \`bao\` is in the PATH: install the command line of Vault or OpenBao"
fi
address=${VAULT_ADDR:-${BAO_ADDR:-}}
[ -n "$address" ] || fail "VAULT_ADDR is not set: give the address, such as https://vault.example.com:8200"
# `bao` prefers names of its own, which may be left over from elsewhere.
export VAULT_ADDR=$address BAO_ADDR=$address

mount=${VAULT_MOUNT_PATH:-secret}
mount=${mount#/}
mount=${mount%/}
path=${VAULT_SECRETS_PATH:-${VAULT_SECRET_PATH:-secret/mutt}}
path=${path#/}
path=${path#"$mount"/}
path=${path%/}
role=${VAULT_ROLE:-mutt}
policy=${VAULT_POLICY:-mutt-service}
ttl=${TOKEN_TTL:-24h}
max_ttl=${TOKEN_MAX_TTL:-72h}
name_ok='^[A-Za-z0-9_./-]+$'
[[ $mount =~ $name_ok ]] || fail "VAULT_MOUNT_PATH may hold letters, digits and _ . / - only"
[[ $path =~ $name_ok ]] || fail "VAULT_SECRETS_PATH must name a secret in the engine, such as secret/mutt"
[[ $role =~ $name_ok ]] || fail "VAULT_ROLE may hold letters, digits and _ . / - only"
[[ $policy =~ $name_ok ]] || fail "VAULT_POLICY may hold letters, digits and _ . / - only"

# Runs the command line quietly. What it says goes to people only when it fails; none of the calls
# made through here prints a secret.
run() {
  local said
  if ! said=$("$cli" "$@" 2>&1); then
    fail "\`$cli $1 $2\` failed: $said"
  fi
}

said=$("$cli" token lookup -format=json 2>&1 >/dev/null) ||
  fail "the token is not accepted at $address (set VAULT_TOKEN or log in with \`$cli login\`): $said"

# --- the engine, the policy, the role
if ! engines=$("$cli" secrets list 2>&1); then
  fail "the engines cannot be listed: $engines"
fi
if grep -q "^$mount/ " <<<"$engines"; then
  tune=$("$cli" read -format=json "sys/mounts/$mount/tune" 2>/dev/null || true)
  if [ -n "$tune" ] && ! tr -d ' \n' <<<"$tune" | grep -q '"version":"2"'; then
    fail "the engine at $mount/ is not KV version 2: choose another VAULT_MOUNT_PATH or run \`$cli kv enable-versioning $mount/\`"
  fi
  echo "KV engine   $mount/ is there"
else
  run secrets enable "-path=$mount" kv-v2
  echo "KV engine   $mount/ enabled"
fi

said=$("$cli" policy write "$policy" - 2>&1 <<HCL
path "$mount/data/$path"       { capabilities = ["read"] }
path "$mount/data/$path/*"     { capabilities = ["read"] }
path "$mount/metadata/$path"   { capabilities = ["list"] }
path "$mount/metadata/$path/*" { capabilities = ["list"] }
path "auth/token/renew-self"   { capabilities = ["update"] }
path "auth/token/lookup-self"  { capabilities = ["read"] }
HCL
) || fail "the policy cannot be written: $said"
echo "policy      $policy allows reading $mount/data/$path"

if ! methods=$("$cli" auth list 2>&1); then
  fail "the login methods cannot be listed: $methods"
fi
grep -q '^approle/ ' <<<"$methods" || run auth enable approle
run write "auth/approle/role/$role" "token_policies=$policy" "token_ttl=$ttl" "token_max_ttl=$max_ttl" \
  token_no_default_policy=false
echo "AppRole     $role, tokens of $ttl, at most $max_ttl"

# --- the secrets
json_text() {
  local text=$1 out='' char code i
  for ((i = 0; i < ${#text}; i++)); do
    char=${text:i:1}
    case $char in
      '"') out+='\"' ;;
      "\\") out+="\\\\" ;;
      [[:cntrl:]])
        printf -v code '\\u%04x' "'$char"
        out+=$code
        ;;
      *) out+=$char ;;
    esac
  done
  printf '"%s"' "$out"
}

random_key() {
  head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n'
}

# The keys that are there; their values are not looked at.
exists=no
there=''
if answer=$("$cli" kv get -format=json "$mount/$path" 2>/dev/null); then
  exists=yes
  there=$(grep -oE '"[A-Z_]+": ' <<<"$answer" | tr -d '": ' | sort -u)
fi
answer=''

names=(INGEST_API_KEY WEBUI_API_KEY MOOG_API_KEY DB_USER DB_PASS_CURRENT DB_PASS_NEXT
  REDIS_PASS_CURRENT REDIS_PASS_NEXT)
body=''
written=()
for name in "${names[@]}"; do
  value=${!name:-}
  if [ -z "$value" ] && [ -t 0 ]; then
    read -rsp "$name (empty: as it is): " value
    echo
  fi
  if [ -z "$value" ] && ! grep -qx "$name\(_CURRENT\)\?" <<<"$there"; then
    case $name in
      INGEST_API_KEY | WEBUI_API_KEY) value=$(random_key) ;;
    esac
  fi
  [ -n "$value" ] || continue
  body+="${body:+,}$(json_text "$name"):$(json_text "$value")"
  written+=("$name")
done

if [ ${#written[@]} -eq 0 ]; then
  echo "secrets     nothing to write"
else
  # `put` replaces the whole secret, `patch` only what is named.
  verb=put
  [ "$exists" = no ] || verb="patch"
  said=$(printf '{%s}' "$body" | "$cli" kv "$verb" "$mount/$path" - 2>&1 >/dev/null) ||
    fail "the secrets cannot be written to $mount/$path: $said"
  echo "secrets     ${written[*]} written to $mount/data/$path"
fi
body=''

# --- what the service logs in with
role_id=$("$cli" read -field=role_id "auth/approle/role/$role/role-id") || fail "the role id cannot be read"
if [ -n "${VAULT_SECRET_ID_FILE:-}" ]; then
  if [ -s "$VAULT_SECRET_ID_FILE" ] && [ "${VAULT_NEW_SECRET_ID:-}" != 1 ]; then
    echo "secret id   $VAULT_SECRET_ID_FILE is there (VAULT_NEW_SECRET_ID=1 replaces it)"
  else
    mkdir -p "$(dirname "$VAULT_SECRET_ID_FILE")"
    # Beside it and renamed, so that a service that logs in at this moment reads the old or the new.
    new=$(mktemp "$VAULT_SECRET_ID_FILE.XXXXXX")
    trap 'rm -f "$new"' EXIT
    "$cli" write -f -field=secret_id "auth/approle/role/$role/secret-id" >"$new" || fail "no secret id was given"
    if [ "$(id -u)" = 0 ] && id mutt >/dev/null 2>&1; then
      chown mutt: "$new"
    fi
    mv -f "$new" "$VAULT_SECRET_ID_FILE"
    trap - EXIT
    echo "secret id   written to $VAULT_SECRET_ID_FILE"
  fi
else
  echo "secret id   not asked for: $cli write -f -field=secret_id auth/approle/role/$role/secret-id > FILE"
fi

echo
echo "For the environment of muttd:"
echo "  VAULT_ADDR=$address"
echo "  VAULT_ROLE_ID=$role_id"
echo "  VAULT_SECRET_ID_FILE=${VAULT_SECRET_ID_FILE:-/etc/mutt/secrets/vault_secret_id}"
echo "  VAULT_MOUNT_PATH=$mount"
echo "  VAULT_SECRETS_PATH=$path"
