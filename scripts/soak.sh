#!/usr/bin/env bash
# Runs an agent with traffic, churn and faults.
#
#   soak.sh [MINUTES]   for so long (30). At the end, counters must be exact to the byte and nothing logged twice; memory,
#                       descriptors and threads must be flat, by the slope over samples
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need_userspace
[ "$(id -u)" = 0 ] || die "this loads eBPF programs and makes network namespaces: run as root"
export MERIDIAN_SOAK_MINUTES=${1:-30}
cargo test --locked --manifest-path "$ROOT/Cargo.toml" --test cli -- --ignored --nocapture soak::
