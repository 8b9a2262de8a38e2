#!/usr/bin/env bash
# Mutates the corpus of every target at random, and keeps the inputs with new outcomes in fuzz/corpus.
#
#   fuzz.sh [SECONDS] [TARGET...]   for so many seconds for each target (60), all of them or those whose tests' names
#                                   hold one of these texts. MERIDIAN_FUZZ_SEED=N repeats a run
#   fuzz.sh [SECONDS] reference     packets: the kernel's programs against a reader written from the RFCs. Needs root
#
# An input that panics is kept as crash-HASH, and `make test` fails until it is mended.
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need_userspace
export MERIDIAN_FUZZ_SECONDS=${1:-60}
shift || true
if [ $# = 0 ] || [ "$1" = reference ]; then
    if [ "$(id -u)" = 0 ]; then
        MERIDIAN_EBPF_OBJECT=$("$ROOT/scripts/ebpf.sh" fresh)
        export MERIDIAN_EBPF_OBJECT
        cargo test --locked --manifest-path "$ROOT/Cargo.toml" --test kernel -- --nocapture reference::the_programs
    else
        echo "packets are left out: they need root" >&2
    fi
    [ $# = 0 ] || exit 0
fi
cargo test --locked --manifest-path "$ROOT/Cargo.toml" --test fuzz -- --nocapture --test-threads "$(nproc)" "$@"
