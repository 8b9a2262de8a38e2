#!/usr/bin/env bash
# Measures the page in a real browser, and writes the table in docs/performance.md.
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# As users run it: a binary of the release profile.
cargo build --quiet --locked --release --manifest-path "$ROOT/Cargo.toml"
export MERIDIAN_BINARY=${MERIDIAN_BINARY:-${CARGO_TARGET_DIR:-$CACHE/target}/release/meridian}
MERIDIAN_BENCH=$ROOT/docs/performance.md exec "$ROOT/scripts/test-page.sh"
