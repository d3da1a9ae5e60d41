# shellcheck shell=bash
# Sourced by the other scripts: finds the programs they need, or says exactly what is missing.

# Makes sure that each named command exists. What is missing and is a Debian package of the same name is installed where
# that is possible without asking anybody: as root, with apt-get. Anything else is named, all of it at once.
need_commands() {
  local command missing=()
  for command in "$@"; do
    command -v "$command" >/dev/null 2>&1 || missing+=("$command")
  done
  [ "${#missing[@]}" -gt 0 ] || return 0

  local packages=()
  for command in "${missing[@]}"; do
    case "$command" in
    curl | jq) packages+=("$command") ;;
    python3) packages+=(python3) ;;
    ip) packages+=(iproute2) ;;
    setpriv) packages+=(util-linux) ;;
    chromium | chromium-headless-shell) packages+=("$command") ;;
    certutil) packages+=(libnss3-tools) ;;
    cargo) ;; # never from here: the toolchain is named in rust-toolchain.toml
    *) ;;
    esac
  done
  if [ "${#packages[@]}" -gt 0 ]; then
    install_packages "${packages[@]}" || true
  fi

  local still=()
  for command in "${missing[@]}"; do
    command -v "$command" >/dev/null 2>&1 || still+=("$command")
  done
  [ "${#still[@]}" -gt 0 ] || return 0
  for command in "${still[@]}"; do
    case "$command" in
    ip) echo "missing: ip. Install it, for example: sudo apt-get install iproute2" >&2 ;;
    certutil) echo "missing: certutil. Install it, for example: sudo apt-get install libnss3-tools" >&2 ;;
    setpriv) echo "missing: setpriv. Install it, for example: sudo apt-get install util-linux" >&2 ;;
    cargo) echo "missing: cargo. Install Rust with rustup; the version comes from rust-toolchain.toml." >&2 ;;
    *) echo "missing: $command. Install it with your package manager, for example: sudo apt-get install $command" >&2 ;;
    esac
  done
  return 1
}

# Installs Debian packages as root; fails without a word where that is impossible.
install_packages() {
  [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1 || return 1
  echo "installing: $*" >&2
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" >/dev/null 2>&1 && return 0
  # A fresh container has no list of packages yet.
  apt-get update >/dev/null 2>&1 || return 1
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" >/dev/null
}

# The library that gives one process another wall clock. There is no command to look for.
need_faketime() {
  [ -n "$(faketime_library)" ] && return 0
  install_packages libfaketime || true
  [ -n "$(faketime_library)" ] && return 0
  echo "missing: libfaketime. Install it, for example: sudo apt-get install libfaketime" >&2
  return 1
}

faketime_library() { compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' | head -n 1; }
