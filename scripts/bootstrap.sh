#!/usr/bin/env bash
# Sets up what `make up` and `make test` need on a machine that has only Python >= 3.11.
#   bootstrap.sh venv     the virtual environment with the package, editable, and the development tools
#   bootstrap.sh system   system packages that tests and benchmarks want, where root on a Debian-like machine
set -euo pipefail
cd "$(dirname "$0")/.."
venv=.venv

dim="" plain=""
if [ -t 2 ] && [ -z "${NO_COLOR:-}" ] && [ "${TERM:-dumb}" != dumb ]; then dim=$(printf '\033[2m') plain=$(printf '\033[0m'); fi
say() { printf '%sfairway:%s %s\n' "$dim" "$plain" "$*" >&2; }
as_root_on_debian() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

apt_install() { # packages that are not there yet; a failure is said, not fatal: the tests name what they miss
  local missing=() p
  for p in "$@"; do dpkg -s "$p" >/dev/null 2>&1 || missing+=("$p"); done
  [ ${#missing[@]} = 0 ] && return 0
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
  apt-get update -qq >/dev/null 2>&1 || true
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null 2>&1 \
    || for p in "${missing[@]}"; do
         apt-get install -y -qq --no-install-recommends "$p" >/dev/null 2>&1 || say "could not install $p; what needs it is skipped and says so"
       done
}

find_python() {
  local p
  for p in ${FAIRWAY_PYTHON:-} python3.13 python3.12 python3.11 python3; do
    if command -v "$p" >/dev/null && "$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$p"; return 0
    fi
  done
  say "needs Python 3.11 or newer on PATH; found: $(python3 --version 2>&1 || echo none)"; return 1
}

make_venv() {
  local python; python=$(find_python)
  if ! "$python" -m venv "$venv" >/dev/null 2>&1; then
    as_root_on_debian && apt_install python3-venv
    rm -rf "$venv"; "$python" -m venv "$venv"
  fi
  say "installing the package into $venv ($("$venv/bin/python" --version))"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade pip
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e '.[dev]'
  touch "$venv/.ready"
}

case "${1:-}" in
  venv) make_venv ;;
  system) if as_root_on_debian; then apt_install nginx redis-server haproxy postgresql procps; else say "not root on a Debian-like machine: tests use what is installed and say what they miss"; fi ;;
  *) echo "usage: bootstrap.sh venv|system" >&2; exit 2 ;;
esac
