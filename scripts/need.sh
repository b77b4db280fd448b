# Sourced: need COMMAND "WHAT FOR" PACKAGE ... installs Debian packages if COMMAND is not there.
need() {
  local command=$1 why=$2
  shift 2
  if command -v "$command" >/dev/null; then
    return
  fi
  echo "Installing $* ($why) ..."
  if ! command -v apt-get >/dev/null; then
    echo "There is no $command here and no apt-get to install it with. Please install it and run this again." >&2
    exit 1
  fi
  local as_root=""
  [ "$(id -u)" = 0 ] || as_root="sudo"
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
  # RUNLEVEL=1 keeps what is installed from being started.
  $as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "$@"
}
