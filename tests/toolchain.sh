# Sourced by scripts, in the project's folder. rust-toolchain.toml names a version of Rust. If rustup has no toolchain of that name, but its
# default toolchain is the same version under another name, such as "stable", this one is used: a machine may be unable to download another.
if command -v rustup >/dev/null && [ -z "${RUSTUP_TOOLCHAIN:-}" ]; then
  pinned=$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
  default=$(rustup default 2>/dev/null | cut -d ' ' -f 1) || true
  if ! rustup toolchain list | grep -qF "$pinned-" && [ -n "$default" ]; then
    case $(RUSTUP_TOOLCHAIN=$default rustc --version) in
      "rustc $pinned "*) export RUSTUP_TOOLCHAIN="$default" ;;
    esac
  fi
  unset pinned default
fi
