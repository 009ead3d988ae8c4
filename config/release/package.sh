#!/usr/bin/env bash
# Makes a release's files from the programs of build.sh: for each architecture an archive and a Debian package, and their checksums.
#
#   package.sh        writes dist/release/
#
# Needs cargo-deb, and a machine that can run the amd64 program, which writes the man pages.
set -euo pipefail
version=$(bash config/release/version.sh)
release=$PWD/dist/release
rm -rf "$release"
mkdir -p "$release"
dist/amd64/pontoon man target/man
for architecture in amd64 arm64; do
  name=pontoon-$version-linux-$architecture
  rm -rf "dist/$name"
  mkdir -p "dist/$name/man"
  cp "dist/$architecture/pontoon" README.md CHANGELOG.md LICENSE-* config/pontoon.toml "dist/$name/"
  cp target/man/*.1 "dist/$name/man/"
  # Owners, order and times do not depend on the machine.
  tar --create --gzip --file "$release/$name.tar.gz" --directory dist --owner 0 --group 0 --numeric-owner --sort name \
    --mtime "@${SOURCE_DATE_EPOCH:-0}" "$name"
  target=x86_64-unknown-linux-gnu
  [ "$architecture" = amd64 ] || target=aarch64-unknown-linux-gnu
  cargo deb --no-build --no-strip --target "$target" --output "$release"
done
cd "$release"
sha256sum -- * >SHA256SUMS
