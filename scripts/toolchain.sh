# shellcheck shell=bash
# Installs the toolchain for the eBPF object.
#
# eBPF in Rust needs three things that a stable toolchain lacks: libcore built from source for bpfel-unknown-none,
# unstable cargo flags, and bpf-linker, whose LLVM must be at least as new as rustc's.
#
# Default: Debian's rustc-web, cargo-web and rust-web-src (a matching set), and a bpf-linker that is built once and
# kept in the cache.
# With MERIDIAN_EBPF_TOOLCHAIN=NAME: that rustup toolchain (it needs the rust-src component) and the
# bpf-linker on the PATH.
#
# Sourced by ebpf.sh: sets EBPF_CARGO (an array: the cargo command) and EBPF_LINKER.
# shellcheck disable=SC2034 # what is set here is used there
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

BPF_LINKER_VERSION=0.13.0

custom_toolchain() {
    EBPF_CARGO=(cargo "+$MERIDIAN_EBPF_TOOLCHAIN")
    EBPF_RUSTC=(rustc "+$MERIDIAN_EBPF_TOOLCHAIN")
    EBPF_LINKER=$(command -v bpf-linker) ||
        die "bpf-linker is not on the PATH: cargo install bpf-linker --version $BPF_LINKER_VERSION"
}

debian_toolchain() {
    need_packages rustc-web cargo-web rust-web-src
    EBPF_CARGO=(env RUSTC=/usr/bin/rustc /usr/bin/cargo)
    EBPF_RUSTC=(/usr/bin/rustc)

    local llvm
    llvm=$(/usr/bin/rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
    [ -n "$llvm" ] || die "/usr/bin/rustc -vV does not name its LLVM version"
    local prefix=$CACHE/bpf-linker-$BPF_LINKER_VERSION-llvm$llvm
    EBPF_LINKER=$prefix/bin/bpf-linker
    if [ ! -x "$EBPF_LINKER" ] || ! "$EBPF_LINKER" --version >/dev/null 2>&1; then
        need_packages "llvm-$llvm-dev" "libpolly-$llvm-dev" libzstd-dev zlib1g-dev libxml2-dev g++
        step "build bpf-linker $BPF_LINKER_VERSION for LLVM $llvm" \
            env "LLVM_PREFIX=$("llvm-config-$llvm" --prefix)" CARGO_TARGET_DIR="$CACHE/bpf-linker-build" \
            cargo install bpf-linker --quiet --version "$BPF_LINKER_VERSION" --locked --root "$prefix" --force \
            --no-default-features --features "llvm-$llvm"
        rm -rf "$CACHE/bpf-linker-build"
    fi
}

need_userspace
if [ -n "${MERIDIAN_EBPF_TOOLCHAIN:-}" ]; then custom_toolchain; else debian_toolchain; fi
