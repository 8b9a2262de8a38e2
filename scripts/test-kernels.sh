#!/usr/bin/env bash
# Boots other kernels in qemu.
#
#   test-kernels.sh                  runs every case at every hook on these kernels and on this machine's, and writes
#                                    the tables into docs/kernels.md
#   test-kernels.sh table KERNEL...  the same for these kernels alone, without the page
#   test-kernels.sh check            loads and counts on 5.10, 6.1 and 6.12: runs the demo with every hook. Hooks that
#                                    the kernel has must be exact; for the others the error must name the missing
#                                    feature in one line
#   test-kernels.sh check KERNEL...  the same on these kernels: see kernels.sh
#   test-kernels.sh fetch            installs and fetches what `check` needs
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/kernels.sh
. "$ROOT/scripts/kernels.sh"

need_packages qemu-system-x86 busybox-static cpio xz-utils kmod

MODULES=(veth bridge af_packet sch_ingress cls_bpf vxlan 8021q wireguard macvlan ipvlan)
MODULES+=(nf_tables nft_chain_nat nft_ct nft_nat nft_masq)
PAGE=$ROOT/docs/kernels.md

# with_libraries ROOT PROGRAM NAME: copies a program, stripped, and its libraries below a root.
with_libraries() {
    local library
    # Without symbols: the machine unpacks it in memory.
    strip -o "$1/bin/$3" "$2"
    ldd "$2" | grep -oE '/[^ ]+' | while read -r library; do cp --parents -L "$library" "$1"; done
}

# programs ROOT KERNEL: busybox and the programs, for the kernel's machine.
programs() {
    local packages program
    if [[ $2 = *-arm64 ]]; then
        packages=$(APT_CONFIG=$(other_suites arm64) unpack_package busybox-static:arm64)
        cp "$packages/bin/busybox" "$1/bin/busybox"
        need_packages gcc-aarch64-linux-gnu libc6-dev-arm64-cross >&2
        program=$("$ROOT/scripts/static.sh" --quick aarch64)
        cp "$program" "$1/bin/meridian"
        return
    fi
    cp /bin/busybox "$1/bin/busybox"
    if [ -z "${CASES:-}" ]; then
        program=$("$ROOT/scripts/static.sh" --quick)
        cp "$program" "$1/bin/meridian"
        return
    fi
    with_libraries "$1" "$CASES" cases
    with_libraries "$1" "$(command -v nft)" nft
    with_libraries "$1" "$(command -v wg)" wg
    with_libraries "$1" "$(command -v ip)" ip
}

# initramfs KERNEL FOLDER OUTPUT: the programs, the modules of the kernel in the folder, and an init that runs the
# commands on stdin.
initramfs() {
    local root release module
    root=$(mktemp -d)
    release=$(ls "$2/lib/modules")
    mkdir -p "$root"/{bin,proc,sys,dev,tmp,modules}
    programs "$root" "$1"
    for module in "${MODULES[@]}"; do
        modprobe -d "$2" -S "$release" --show-depends "$module"
    done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++' >"$root/files"
    while read -r module; do
        xz -dc "$module" 2>/dev/null >"$root/modules/$(basename "$module" .xz)" || cp "$module" "$root/modules/"
        basename "$module" .xz >>"$root/modules/order"
    done <"$root/files"
    rm "$root/files"
    {
        cat <<'END'
#!/bin/busybox sh
export PATH=/bin
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs dev /dev
while read -r module; do /bin/busybox insmod "/modules/$module"; done </modules/order
END
        cat
        echo '/bin/busybox poweroff -f'
    } >"$root/init"
    chmod +x "$root/init"
    (cd "$root" && find . | cpio --quiet -o -H newc | gzip -1) >"$3"
    rm -rf "$root"
}

# boot KERNEL SECONDS: the output of the script on stdin on that kernel.
boot() {
    local folder image machine=(qemu-system-x86_64 -accel tcg -cpu max) console=ttyS0
    if [[ $1 = *-arm64 ]]; then
        need_packages qemu-system-arm >&2
        machine=(qemu-system-aarch64 -machine virt -cpu "max,pauth-impdef=on")
        console=ttyAMA0
    fi
    folder=$(kernel "$1")
    image=$(mktemp)
    initramfs "$1" "$folder" "$image"
    timeout "$2" "${machine[@]}" -smp 2 -m 2048 -nographic -no-reboot \
        -kernel "$folder/vmlinuz" -initrd "$image" -append "console=$console quiet panic=-1" </dev/null 2>&1 |
        tr -d '\r' | tee "$CACHE/kernel-$1.log" || true
    rm -f "$image"
}

# shellcheck disable=SC2016 # expanded there
DEMO='
for hook in auto netfilter tcx clsact; do
    /bin/meridian demo --duration 1s --output json --hook $hook >/tmp/out 2>/tmp/err
    code=$?
    echo
    /bin/busybox sed "s/,\"advice\":.*//; s/^/$hook stdout: /" /tmp/out
    /bin/busybox sed "s/^/$hook stderr: /" /tmp/err
    echo "$hook exit code: $code"
done
'

# on KERNEL PATTERN...: checks that the demo's output on that kernel has each pattern.
on() {
    local output kernel=$1 pattern
    shift
    output=$(boot "$kernel" 1500 <<<"$DEMO")
    for pattern in "$@"; do
        grep -qE "$pattern" <<<"$output" || {
            tail -n 30 <<<"$output" >&2
            die "Linux $kernel: nothing like '$pattern'"
        }
    done
}

# check_kernel KERNEL: each hook that this kernel has is exact, and the others name what is missing.
check_kernel() {
    case $1 in
    5.10)
        step "Linux $1: the missing instruction is named" on "$1" \
            '^auto stderr: meridian: Linux 5\.10[^ ]* has no atomic exchange in eBPF .*: Linux 5\.12 or newer' \
            '^auto exit code: 1$' '^clsact stderr: meridian: Linux 5\.10[^ ]* has no atomic exchange' '^clsact exit code: 1$' \
            '^netfilter stderr: meridian: Linux 5\.10[^ ]* has no netfilter' '^tcx stderr: meridian: Linux 5\.10[^ ]* has no tcx'
        ;;
    6.1 | 6.1-*)
        step "Linux $1: clsact is exact, missing features are named" on "$1" \
            '^auto stdout: .*"hook":"clsact".*"exact":true' '^auto exit code: 0$' '^clsact exit code: 0$' \
            '^netfilter stderr: meridian: Linux 6\.1[^ ]* has no netfilter eBPF programs' '^netfilter exit code: 1$' \
            '^tcx stderr: meridian: Linux 6\.1[^ ]* has no tcx' '^tcx exit code: 1$'
        ;;
    *)
        step "Linux $1: every hook is exact" on "$1" \
            '^auto stdout: .*"hook":"netfilter".*"exact":true' '^auto exit code: 0$' \
            '^netfilter exit code: 0$' '^tcx exit code: 0$' '^clsact exit code: 0$'
        ;;
    esac
}

check() {
    local kernel
    step "build" "$ROOT/scripts/static.sh" --quick
    for kernel in "$@"; do
        check_kernel "$kernel"
    done
}

# shellcheck disable=SC2016 # expanded there
TABLE='
export MERIDIAN_CASES=/tmp/cases
/bin/cases cases --nocapture >/tmp/out 2>&1
code=$?
/bin/busybox tail -n 60 /tmp/out
echo
echo "release: $(/bin/busybox uname -r)"
/bin/busybox sed "s/^/table: /" /tmp/cases
echo "exit code: $code"
'

# cases KERNEL: runs all cases on that kernel, and adds their table to the page.
cases() {
    local output
    output=$(boot "$1" 3600 <<<"$TABLE")
    grep -q '^exit code: 0$' <<<"$output" || {
        tail -n 80 <<<"$output" >&2
        die "Linux $1: not every case is exact"
    }
    printf '\n## Linux %s\n\n' "$(sed -n 's/^release: //p' <<<"$output")" >>"$PAGE"
    sed -n 's/^table: //p' <<<"$output" >>"$PAGE"
}

here() {
    local table
    table=$(mktemp)
    MERIDIAN_CASES=$table cargo test --quiet --locked --manifest-path "$ROOT/Cargo.toml" --test kernel cases >&2
    printf '\n## Linux %s\n\n' "$(uname -r | cut -d - -f 1)" >>"$PAGE"
    cat "$table" >>"$PAGE"
    rm -f "$table"
}

# build_cases: sets CASES, the program that runs the cases.
build_cases() {
    need_packages nftables wireguard-tools iproute2
    CASES=$(cargo test --quiet --locked --manifest-path "$ROOT/Cargo.toml" --test kernel --no-run --message-format json |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | grep '/kernel-')
}

# The kernels of the page, and those on which only the demo runs there.
TABLES=(newest newest-rt 6.12 6.12-rt 6.1)
CHECKED=(5.10 6.12-arm64)
# The kernels of `check` that are not named.
QUICK=(5.10 6.12 6.1)

introduction() {
    cat <<'END'
# Kernels

`make test-kernels` writes this page. It runs every case at every hook, on this machine's kernel and on Debian's in qemu, and compares the eBPF programs' matrix with the packets on the wire, in bytes and packets, by zone pair and IP version. "exact" means no difference; other words after it name a limit of the check. `rt` in a release is a kernel with PREEMPT_RT.

Linux 6.1 has neither netfilter programs nor tcx, so `--hook auto` takes clsact there.

Linux 5.10 is refused with the reason: its eBPF has no atomic exchange (`cmpxchg`, `xchg`: Linux 5.12), with which two CPUs agree on who makes a flow entry. It lacks nothing else: with plain stores in the place of these two instructions the programs load there, and the demo counts exactly at clsact.

`make test-kernels` also boots Linux 6.12 on an emulated 64-bit ARM machine and runs the demo there, with the program built for it: each hook is exact. The page has no table of it.
END
}

whole_table() {
    local kernel
    check "${CHECKED[@]}"
    build_cases
    introduction >"$PAGE"
    step "this kernel" here
    for kernel in "${TABLES[@]}"; do
        step "Linux $kernel" cases "$kernel"
    done
    cat "$PAGE"
}

# some_tables KERNEL...: prints the tables of these kernels.
some_tables() {
    local kernel
    build_cases
    PAGE=$(mktemp)
    for kernel in "$@"; do
        step "Linux $kernel" cases "$kernel"
    done
    cat "$PAGE"
    rm -f "$PAGE"
}

case ${1:-} in
fetch)
    for name in "${QUICK[@]}"; do (kernel "$name" >/dev/null); done
    ;;
check)
    shift
    [ $# -gt 0 ] || set -- "${QUICK[@]}"
    check "$@"
    ;;
table)
    shift
    some_tables "$@"
    ;;
'') whole_table ;;
*) die "usage: test-kernels.sh [fetch | check [KERNEL...] | table KERNEL...]" ;;
esac
