#!/usr/bin/env bash
# Builds the eBPF object from source.
#
#   ebpf.sh build   builds it into the repository, with the hash of its sources
#   ebpf.sh check   fails if the object in the repository is older than its sources (needs no toolchain)
#   ebpf.sh fresh   builds it and prints its path; the object in the repository stays
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

KEPT=$ROOT/plugin/ebpf/meridian.bpf.o
STAMP=$ROOT/plugin/ebpf/meridian.bpf.stamp

# The hash of everything that the object is built from, the lock file included.
source_hash() {
    (cd "$ROOT" && find plugin-ebpf plugin-abi -type f -not -path '*/target/*' | LC_ALL=C sort | xargs sha256sum) |
        sha256sum | cut -d ' ' -f 1
}

compile() {
    # shellcheck source=scripts/toolchain.sh
    . "$ROOT/scripts/toolchain.sh"
    local target_dir=$CACHE/target-ebpf
    # Version 3 of the instruction set (Linux 5.1) has 32-bit arithmetic and jumps. Paths of this machine are kept out
    # of the object.
    (cd "$ROOT/plugin-ebpf" &&
        RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$target_dir \
            CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER=$EBPF_LINKER \
            RUSTFLAGS="-C target-cpu=v3 --remap-path-prefix=$ROOT=. --remap-path-prefix=$HOME=~" \
            "${EBPF_CARGO[@]}" build --quiet --locked --release --bin meridian \
            -Z build-std=core --target bpfel-unknown-none)
    OBJECT=$target_dir/bpfel-unknown-none/release/meridian
}

case ${1:-} in
build)
    compile
    mkdir -p "$(dirname "$KEPT")"
    cp "$OBJECT" "$KEPT"
    {
        echo "# Written by \`make ebpf\`. The hash of the sources decides whether the object is stale; the rest is a note."
        echo "sources $(source_hash)"
        echo "compiler $("${EBPF_RUSTC[@]}" --version)"
        echo "linker $("$EBPF_LINKER" --version)"
    } >"$STAMP"
    say "built ${KEPT#"$ROOT"/} ($(stat -c %s "$KEPT") bytes)"
    # The kernel tests the toolchain's output: the programs load and count.
    if [ "$(id -u)" = 0 ]; then
        step "load it and count packets" env "CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$CACHE/target}" \
            cargo test --quiet --locked --manifest-path "$ROOT/Cargo.toml" --test kernel packets
    fi
    ;;
check)
    kept=$(sed -n 's/^sources //p' "$STAMP" 2>/dev/null || true)
    if [ ! -f "$KEPT" ] || [ "$kept" != "$(source_hash)" ]; then
        die "plugin/ebpf/meridian.bpf.o is stale: its sources have changed; run \`make ebpf\` and commit the result"
    fi
    ;;
fresh)
    compile
    echo "$OBJECT"
    ;;
*) die "usage: ebpf.sh build|check|fresh" ;;
esac
