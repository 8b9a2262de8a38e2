#!/usr/bin/env bash
# Runs Meridian beside the real Cilium, on a cluster of three real kubelets: `test-cilium.sh default` in Cilium's
# default mode, other names in those modes, `test-cilium.sh all` in every mode. The first run builds Kubernetes and
# Cilium, which takes half an hour on two cores.
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=conformance/cilium/modes.sh
. "$ROOT/conformance/cilium/modes.sh"

[ $# -gt 0 ] || die "which mode: all, or any of ${CILIUM_MODES[*]}"
[ "$(id -u)" = 0 ] || die "nodes are namespaces: run as root"
[ "$1" != all ] || set -- "${CILIUM_MODES[@]}"
obstacle=$(obstacle_to_nodes)
if [ -n "$obstacle" ]; then
    skip "beside Cilium: $*" "$obstacle"
    exit
fi
need_userspace

# Built here, so that the build does not count as the suite's time.
"$ROOT/scripts/conformance.sh" cluster >/dev/null
MERIDIAN_CILIUM=$("$ROOT/scripts/conformance.sh" cilium)
[[ " $* " != *" upgrade "* ]] || "$ROOT/scripts/conformance.sh" cilium-upgrade >/dev/null
MERIDIAN_TRAFFIC=$("$ROOT/scripts/conformance.sh" traffic)
MERIDIAN_BINARY=${MERIDIAN_BINARY:-$("$ROOT/scripts/static.sh" --quick)}
export MERIDIAN_CILIUM MERIDIAN_TRAFFIC MERIDIAN_BINARY
cd "$ROOT"
cargo test --quiet --locked --test cilium --no-run
for mode in "$@"; do
    step "beside Cilium: $mode" cargo test --quiet --locked --test cilium -- \
        --ignored --test-threads 1 --nocapture --exact "modes::${mode//-/_}"
done
