#!/bin/sh
# Builds the program of the image and of the packages, for Linux. The Dockerfile and the release workflow call it.
#
#   build.sh amd64|arm64        writes dist/ARCHITECTURE/pontoon
#
# Another architecture than the machine's is cross-compiled, because emulation takes many times as long. This needs Debian or Ubuntu, and rustup.
set -eu
case ${1:-} in
  amd64) cpu=x86_64 ;;
  arm64) cpu=aarch64 ;;
  *)
    echo "usage: build.sh amd64|arm64" >&2
    exit 2
    ;;
esac
target=$cpu-unknown-linux-gnu
if [ "$1" != "$(dpkg --print-architecture)" ]; then
  rustup target add "$target"
  # The program's C code is compiled with it, too.
  linker=$cpu-linux-gnu-gcc
  if ! command -v "$linker" >/dev/null; then
    as_root=
    [ "$(id -u)" = 0 ] || as_root=sudo
    $as_root apt-get update -qq
    $as_root apt-get install -y -qq --no-install-recommends "gcc-$(echo $cpu | tr _ -)-linux-gnu" "libc6-dev-$1-cross"
  fi
  export "CARGO_TARGET_$(echo $cpu | tr '[:lower:]' '[:upper:]')_UNKNOWN_LINUX_GNU_LINKER=$linker"
fi
cargo build --release --locked --no-default-features --features iam --target "$target" --bin pontoon
mkdir -p "dist/$1"
cp "target/$target/release/pontoon" "dist/$1/"
