#!/usr/bin/env bash
# Prints the version in Cargo.toml. Fails if the tag in GITHUB_REF_NAME is for another one. Without a tag, nothing is compared.
set -euo pipefail
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
if [ "${GITHUB_REF_TYPE:-}" = tag ] && [ "$GITHUB_REF_NAME" != "v$version" ]; then
  echo "version.sh: the tag is $GITHUB_REF_NAME, but the version in Cargo.toml needs v$version" >&2
  exit 1
fi
echo "$version"
