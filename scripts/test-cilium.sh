#!/usr/bin/env bash
# Runs Meridian beside the real Cilium, on a cluster of three real kubelets: `test-cilium.sh default` in the mode that
# Cilium has by itself, with other modes' names in those, `test-cilium.sh all` in each. The first run builds
# Kubernetes and Cilium, half an hour on two cores.
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=conformance/cilium/modes.sh
. "$ROOT/conformance/cilium/modes.sh"

[ $# -gt 0 ] || die "which mode: all, or any of ${CILIUM_MODES[*]}"
[ "$(id -u)" = 0 ] || die "nodes are namespaces: run as root"
[ "$1" != all ] || set -- "${CILIUM_MODES[@]}"
need_userspace

# Built here, so that their seconds are not the suite's.
"$ROOT/scripts/conformance.sh" cluster >/dev/null
"$ROOT/scripts/conformance.sh" cilium >/dev/null
MERIDIAN_TRAFFIC=$("$ROOT/scripts/conformance.sh" traffic)
MERIDIAN_BINARY=${MERIDIAN_BINARY:-$("$ROOT/scripts/static.sh")}
export MERIDIAN_TRAFFIC MERIDIAN_BINARY
cd "$ROOT"
cargo test --quiet --locked --test cilium --no-run
for mode in "$@"; do
    step "beside Cilium: $mode" cargo test --quiet --locked --test cilium -- \
        --ignored --test-threads 1 --nocapture --exact "modes::${mode//-/_}"
done
