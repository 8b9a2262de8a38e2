#!/usr/bin/env bash
# Measures the kernel program and the agent, and writes the tables in docs/performance.md.
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[ "$(id -u)" = 0 ] || die "the bench loads eBPF programs: run as root"
need_userspace
cd "$ROOT"
# The kernel measures, so the bench's own build profile does not matter.
step "a packet" cargo bench --quiet --locked --profile dev --bench packet
step "ten thousand connections" cargo bench --quiet --locked --profile dev --bench live
step "TCP streams" cargo bench --quiet --locked --profile dev --bench throughput
step "a drain" cargo bench --quiet --locked --bench drain
MERIDIAN_HUBBLE_OBSERVER=$(scripts/conformance.sh observer)
export MERIDIAN_HUBBLE_OBSERVER
step "serving flows" cargo bench --quiet --locked --bench observer
step "a large cluster" cargo bench --quiet --locked --bench controller
step "advice for a large cluster" cargo bench --quiet --locked --bench advice
step "a month of history" cargo bench --quiet --locked --bench history
step "a bill of 2 GB" cargo bench --quiet --locked --bench reconcile
