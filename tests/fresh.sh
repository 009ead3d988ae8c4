#!/usr/bin/env bash
# Runs all checks as on a machine that has built nothing before: on a clean clone of HEAD, with every cache empty. A test fails here if it
# passes only because of crates, packages or tools from an earlier run, uncommitted files or a shell's settings.
#
#   bash tests/fresh.sh [--keep] [COMMAND [ARGUMENT…]]
#   bash tests/fresh.sh cargo fetch --locked
#
# COMMAND runs in the clone. The default is `bash tests/run.sh`. The exit code is COMMAND's. The scratch folder is in TMPDIR (/tmp), and is
# deleted at the end; --keep keeps it, and prints its path.
#
# CARGO_HOME, the caches of npm and pip, HOME, XDG_CACHE_HOME and TMPDIR are empty. Settings for registries and mirrors still apply:
# variables stay, and configuration files are linked, not copied, so that no secret is left behind. Rust's toolchain and the system's
# packages stay, too.
set -euo pipefail

keep=
if [ "${1:-}" = --keep ]; then
  keep=1
  shift
fi
case ${1:-} in
  -*)
    echo "usage: fresh.sh [--keep] [COMMAND [ARGUMENT...]]" >&2
    exit 2
    ;;
esac
[ $# -gt 0 ] || set -- bash tests/run.sh

repository=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)
commit=$(git -C "$repository" rev-parse HEAD)
if [ -n "$(git -C "$repository" status --porcelain)" ]; then
  echo "fresh.sh: uncommitted changes are left out" >&2
fi

# The path is short, because paths of Unix sockets below it may have only some 100 bytes. Other users can enter it, as they can /tmp, because
# tests run programs as other users.
scratch=$(mktemp -d "${TMPDIR:-/tmp}/fresh.XXXXXX")
finish() {
  if [ -n "$keep" ]; then
    echo "fresh.sh: kept $scratch" >&2
  else
    rm -rf "$scratch"
  fi
}
trap finish EXIT
chmod 755 "$scratch"
mkdir -p "$scratch"/{cargo/bin,home/.config,cache,npm,pip}
mkdir -m 1777 "$scratch/tmp"

# FOLDER TARGET NAME…: links those of these names that exist in FOLDER into TARGET.
link() {
  local folder=$1 target=$2 name
  for name in "${@:3}"; do
    [ ! -e "$folder/$name" ] || ln -s "$folder/$name" "$target/$name"
  done
}
cargo=${CARGO_HOME:-$HOME/.cargo}
link "$cargo" "$scratch/cargo" config config.toml credentials credentials.toml
link "$HOME" "$scratch/home" .gitconfig .git-credentials .netrc .npmrc .pip .pydistutils.cfg
link "${XDG_CONFIG_HOME:-$HOME/.config}" "$scratch/home/.config" git pip

# Links rustup's proxies for cargo, rustc and others, without the programs that `cargo install` put beside them.
for program in "$cargo"/bin/*; do
  [ ! "$program" -ef "$cargo/bin/rustup" ] || ln -s "$program" "$scratch/cargo/bin/"
done
path=$scratch/cargo/bin
IFS=: read -ra folders <<<"$PATH"
for folder in "${folders[@]}"; do
  [ "$folder" -ef "$cargo/bin" ] || path+=:$folder
done

# Variables that point to results of an earlier run or of another project, or that change what the tests do.
forget=(CARGO_BUILD_RUSTC_WRAPPER CARGO_BUILD_TARGET_DIR CARGO_INSTALL_ROOT CARGO_TARGET_DIR NODE_PATH NPM_CONFIG_CACHE PYTHONHOME
  PYTHONPATH RUSTC_WRAPPER VIRTUAL_ENV XDG_CONFIG_HOME XDG_DATA_HOME XDG_STATE_HOME)
for name in $(compgen -e PONTOON_); do forget+=("$name"); done
fresh() {
  env "${forget[@]/#/--unset=}" PATH="$path" HOME="$scratch/home" TMPDIR="$scratch/tmp" XDG_CACHE_HOME="$scratch/cache" \
    CARGO_HOME="$scratch/cargo" RUSTUP_HOME="${RUSTUP_HOME:-$HOME/.rustup}" npm_config_cache="$scratch/npm" \
    PIP_CACHE_DIR="$scratch/pip" "$@"
}

# STEP COMMAND…: runs the command, and prints the time that it took. The exit code is the command's.
timed() {
  local began=$SECONDS status=0
  "${@:2}" || status=$?
  echo "fresh.sh: $1 took $((SECONDS - began)) s, exit code $status" >&2
  return "$status"
}
clone() {
  git clone --quiet --no-checkout --no-hardlinks "$repository" "$scratch/pontoon" &&
    git -C "$scratch/pontoon" checkout --quiet --detach "$commit"
}
timed "clone of ${commit:0:7}" clone
cd "$scratch/pontoon"
timed "$*" fresh "$@"
