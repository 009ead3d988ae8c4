# Functions that unpack programs of another Debian release, with the libraries that they were built for, the C library included. The
# programs go into a folder: nothing is installed, and no other program of the machine changes. A release has one version of each package,
# so the functions take no version.
#
# Sourced by scripts with `set -euo pipefail`. Do not call debian_unpack in a condition: there, a failure would not end the script.

# FOLDER SUITE PATTERN PACKAGE…: unpacks the packages into FOLDER, with those of their dependencies whose names match PATTERN. PATTERN
# excludes packages that only the installation needs. The mirror is that of the machine's own sources, or Debian's.
debian_unpack() (
  folder=$(mkdir -p "$1" && cd "$1" && pwd) suite=$2 pattern=$3
  shift 3
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/packages"
  mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
    grep -v '^ *#' | grep -oE '[a-z]+://[^ ]*/debian/?( |$)' | head -n 1) || true
  keys=/usr/share/keyrings/debian-archive-keyring.gpg
  if [ -f "$keys" ]; then keys="[signed-by=$keys]"; else keys=; fi
  echo "deb $keys ${mirror:-http://deb.debian.org/debian} $suite main" >"$work/sources.list"
  # Uses separate lists, cache and state, and ignores the machine's preferences.
  apt() {
    apt-get -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null \
      -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null \
      -o Dir::State::Lists="$work/lists" -o Dir::State::status=/dev/null -o Dir::Cache="$work/cache" \
      -o APT::Sandbox::User=root -o Acquire::Retries=3 -o Acquire::Languages=none "$@"
  }
  apt update -qq --error-on=any >&2
  packages=$(apt install -s --no-install-recommends "$@" |
    awk -v pattern="^($pattern)" '/^Inst/ && $2 ~ pattern { sub(/^[(]/, "", $3); print $2 "=" $3 }')
  cd "$work/packages"
  # shellcheck disable=SC2086 # Each package is one word.
  apt download -qq $packages >&2
  for package in *.deb; do dpkg-deb --extract "$package" "$folder"; done
  rm -rf "$folder"/usr/share/{doc,man,ri,locale}
)

# FOLDER NAME LINES: writes the script FOLDER/path/NAME with these LINES of shell. In LINES, `run PROGRAM ARGUMENT…` starts a program of the
# folder with the folder's C library, $root is the folder, and $libraries the folder of its libraries. The script finds them relative to its
# own path, so that the folder can be moved.
debian_launcher() {
  local folder=$1 name=$2 lines=$3 libraries loader
  libraries=$(cd "$folder" && echo usr/lib/*-linux-gnu*)
  loader=$(cd "$folder/$libraries" && echo ld-linux*.so.*)
  mkdir -p "$folder/path"
  cat >"$folder/path/$name" <<END
#!/bin/sh
root=\$(cd "\${0%/*}/.." && pwd)
libraries=\$root/$libraries
run() { exec "\$libraries/$loader" --library-path "\$libraries" "\$@"; }
$lines
END
  chmod +x "$folder/path/$name"
}
