#!/usr/bin/env bash
# Builds the command if needed and runs the demo. Only the demo's own output is on stdout.
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[ "$(id -u)" = 0 ] || die "the demo makes network namespaces and loads eBPF programs: run as root"
need_userspace
step "build" cargo build --quiet --locked --manifest-path "$ROOT/Cargo.toml"
exec "$CARGO_TARGET_DIR/debug/meridian" demo "$@"
