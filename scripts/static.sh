#!/usr/bin/env bash
# Builds the static binary for the image, and prints its path.
#
#   static.sh           for this machine
#   static.sh aarch64   for another machine, with the linker aarch64-linux-gnu-gcc
#   static.sh --quick   for tests: larger and slower, and built again in a minute after a change of one file. The
#                       other one takes six: two for our crate, four for the optimization of the whole program
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need_userspace
profile=image
if [ "${1:-}" = --quick ]; then
    profile=static
    shift
fi
here=$(uname -m)
arch=${1:-$here}
target=$arch-unknown-linux-gnu
if [ "$arch" != "$here" ]; then
    linker=$arch-linux-gnu-gcc
    command -v "$linker" >/dev/null || die "$linker is not on the PATH: install gcc-$arch-linux-gnu"
    variable=CARGO_TARGET_$(printf '%s' "$target" | tr 'a-z-' 'A-Z_')_LINKER
    export "$variable=$linker"
fi
if ! rustc --print target-libdir --target "$target" | xargs test -d; then
    die "Rust has no $target here: rustup target add $target"
fi
# With a named target the flags apply to the binary and not to build scripts. Random numbers come from the system call:
# a static binary would look for a device instead.
RUSTFLAGS="-C target-feature=+crt-static --cfg getrandom_backend=\"linux_getrandom\"" CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$CACHE/target} \
    cargo build --quiet --locked --profile "$profile" --bin meridian --target "$target" --manifest-path "$ROOT/Cargo.toml"
echo "${CARGO_TARGET_DIR:-$CACHE/target}/$target/$profile/meridian"
