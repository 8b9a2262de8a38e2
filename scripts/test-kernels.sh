#!/usr/bin/env bash
# Boots older kernels in qemu.
#
#   test-kernels.sh         runs every case at every hook on these kernels and on this machine's, and writes the
#                           tables into docs/kernels.md
#   test-kernels.sh check   loads and counts: runs the demo with every hook. Hooks that the kernel has must be
#                           exact; for the others the error must name the missing feature in one line
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need_packages qemu-system-x86 busybox-static cpio xz-utils kmod
apt-cache show linux-image-amd64 >/dev/null 2>&1 || apt-get update -qq

MERIDIAN=$CARGO_TARGET_DIR/debug/meridian
MODULES=(veth bridge af_packet sch_ingress cls_bpf vxlan 8021q wireguard macvlan ipvlan)
MODULES+=(nf_tables nft_chain_nat nft_ct nft_nat nft_masq)
PAGE=$ROOT/docs/kernels.md

# kernel SERIES: fetches the newest kernel of a series, and prints the path of its contents.
kernel() {
    local package dir
    package=$(apt-cache pkgnames "linux-image-$1." | grep -E -- '-amd64-unsigned$' | grep -vE 'rt|cloud' | sort -V | tail -n 1)
    [ -n "$package" ] || die "there is no linux-image-$1 package"
    dir=$(unpack_package "$package")
    [ -f "$dir/lib/modules/$(ls "$dir/lib/modules")/modules.dep" ] || depmod -b "$dir" "$(ls "$dir/lib/modules")"
    echo "$dir"
}

# with_libraries ROOT PROGRAM NAME: copies a program and its libraries below a root.
with_libraries() {
    local library
    cp -L "$2" "$1/bin/$3"
    ldd "$2" | grep -oE '/[^ ]+' | while read -r library; do cp --parents -L "$library" "$1"; done
}

# initramfs KERNEL_DIR OUTPUT: busybox, the programs with their libraries, the modules, and an init that runs the
# commands on stdin.
initramfs() {
    local kernel=$1 root release module
    root=$(mktemp -d)
    release=$(ls "$kernel/lib/modules")
    mkdir -p "$root"/{bin,proc,sys,dev,tmp,modules}
    cp /bin/busybox "$root/bin/busybox"
    with_libraries "$root" "$MERIDIAN" meridian
    if [ -n "${CASES:-}" ]; then
        with_libraries "$root" "$CASES" cases
        with_libraries "$root" "$(command -v nft)" nft
        with_libraries "$root" "$(command -v wg)" wg
        with_libraries "$root" "$(command -v ip)" ip
    fi
    for module in "${MODULES[@]}"; do
        modprobe -d "$kernel" -S "$release" --show-depends "$module"
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
    (cd "$root" && find . | cpio --quiet -o -H newc | gzip -1) >"$2"
    rm -rf "$root"
}

# boot SERIES SECONDS: the output of the script on stdin on that kernel.
boot() {
    local kernel image
    kernel=$(kernel "$1")
    image=$(mktemp)
    initramfs "$kernel" "$image"
    timeout "$2" qemu-system-x86_64 -accel tcg -cpu max -smp 2 -m 2048 -nographic -no-reboot \
        -kernel "$kernel"/boot/vmlinuz-* -initrd "$image" -append 'console=ttyS0 quiet panic=-1' </dev/null 2>&1 |
        tr -d '\r' | tee "$CACHE/kernel-$1.log" || true
    rm -f "$image"
}

# shellcheck disable=SC2016 # expanded there
DEMO='
for hook in auto netfilter tcx clsact; do
    /bin/meridian demo --duration 1s --output json --hook $hook >/tmp/out 2>/tmp/err
    code=$?
    echo
    /bin/busybox sed "s/^/$hook stdout: /" /tmp/out
    /bin/busybox sed "s/^/$hook stderr: /" /tmp/err
    echo "$hook exit code: $code"
done
'

# expect SERIES PATTERN...: checks that the demo's output on that kernel has each pattern.
expect() {
    local output series=$1 pattern
    shift
    output=$(boot "$series" 240 <<<"$DEMO")
    for pattern in "$@"; do
        grep -qE "$pattern" <<<"$output" || {
            tail -n 30 <<<"$output" >&2
            die "Linux $series: nothing like '$pattern'"
        }
    done
}

check() {
    step "build" cargo build --quiet --locked --manifest-path "$ROOT/Cargo.toml"
    step "Linux 6.12: every hook is exact" expect 6.12 \
        '^auto stdout: .*"hook":"netfilter".*"exact":true' '^auto exit code: 0$' \
        '^netfilter exit code: 0$' '^tcx exit code: 0$' '^clsact exit code: 0$'
    step "Linux 6.1: clsact is exact, missing features are named" expect 6.1 \
        '^auto stdout: .*"hook":"clsact".*"exact":true' '^auto exit code: 0$' '^clsact exit code: 0$' \
        '^netfilter stderr: meridian: Linux 6\.1[^ ]* has no netfilter eBPF programs' '^netfilter exit code: 1$' \
        '^tcx stderr: meridian: Linux 6\.1[^ ]* has no tcx' '^tcx exit code: 1$'
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

# cases SERIES: runs all cases on that kernel, and adds their table to the page.
cases() {
    local output
    output=$(boot "$1" 1500 <<<"$TABLE")
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

whole_table() {
    need_packages nftables wireguard-tools iproute2
    CASES=$(mktemp)
    local built
    built=$(cargo test --quiet --locked --manifest-path "$ROOT/Cargo.toml" --test kernel --no-run --message-format json |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | grep '/kernel-')
    strip -o "$CASES" "$built"
    chmod +x "$CASES"
    cat >"$PAGE" <<'END'
# Kernels

`make test-kernels` writes this page. It runs every case at every hook, on this machine's kernel and on Debian's in qemu, and compares the eBPF programs' matrix with the packets on the wire, in bytes and packets, by zone pair and IP version. "exact" means no difference; other words after it name a limit of the check.

Linux 6.1 has neither netfilter programs nor tcx, so `--hook auto` takes clsact there.
END
    step "this kernel" here
    step "Linux 6.12" cases 6.12
    step "Linux 6.1" cases 6.1
    rm -f "$CASES"
    cat "$PAGE"
}

case ${1:-} in
check) check ;;
'') whole_table ;;
*) die "usage: test-kernels.sh [check]" ;;
esac
