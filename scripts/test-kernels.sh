#!/usr/bin/env bash
# Boots older kernels in qemu and runs the demo there, with every hook: those that the kernel has
# must be exact, of the others it must be said in one line what is missing.
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need_packages qemu-system-x86 busybox-static cpio xz-utils kmod
apt-cache show linux-image-amd64 >/dev/null 2>&1 || apt-get update -qq

MERIDIAN=$CARGO_TARGET_DIR/debug/meridian
MODULES=(veth bridge af_packet sch_ingress cls_bpf)

# kernel SERIES: fetches the newest kernel of a series, prints where it is unpacked.
kernel() {
    local package dir
    package=$(apt-cache pkgnames "linux-image-$1." | grep -E -- '-amd64-unsigned$' | grep -vE 'rt|cloud' | sort -V | tail -n 1)
    [ -n "$package" ] || die "there is no linux-image-$1 package"
    dir=$(unpack_package "$package")
    [ -f "$dir/lib/modules/$(ls "$dir/lib/modules")/modules.dep" ] || depmod -b "$dir" "$(ls "$dir/lib/modules")"
    echo "$dir"
}

# initramfs KERNEL_DIR OUTPUT: busybox, the command with its libraries, the modules, and an init.
initramfs() {
    local kernel=$1 root release library module
    root=$(mktemp -d)
    release=$(ls "$kernel/lib/modules")
    mkdir -p "$root"/{bin,proc,sys,dev,tmp,modules}
    cp /bin/busybox "$root/bin/busybox"
    cp "$MERIDIAN" "$root/bin/meridian"
    ldd "$MERIDIAN" | grep -oE '/[^ ]+' | while read -r library; do cp --parents -L "$library" "$root"; done
    for module in "${MODULES[@]}"; do
        modprobe -d "$kernel" -S "$release" --show-depends "$module"
    done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++' >"$root/files"
    while read -r module; do
        xz -dc "$module" 2>/dev/null >"$root/modules/$(basename "$module" .xz)" || cp "$module" "$root/modules/"
        basename "$module" .xz >>"$root/modules/order"
    done <"$root/files"
    rm "$root/files"
    cat >"$root/init" <<'END'
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs dev /dev
while read -r module; do /bin/busybox insmod "/modules/$module"; done </modules/order
for hook in auto netfilter tcx clsact; do
    /bin/meridian demo --duration 1s --output json --hook $hook >/tmp/out 2>/tmp/err
    code=$?
    echo
    /bin/busybox sed "s/^/$hook stdout: /" /tmp/out
    /bin/busybox sed "s/^/$hook stderr: /" /tmp/err
    echo "$hook exit code: $code"
done
/bin/busybox poweroff -f
END
    chmod +x "$root/init"
    (cd "$root" && find . | cpio --quiet -o -H newc | gzip -1) >"$2"
    rm -rf "$root"
}

# boot SERIES: what the demo says on that kernel.
boot() {
    local kernel image
    kernel=$(kernel "$1")
    image=$(mktemp)
    initramfs "$kernel" "$image"
    timeout 240 qemu-system-x86_64 -accel tcg -cpu max -smp 2 -m 1024 -nographic -no-reboot \
        -kernel "$kernel"/boot/vmlinuz-* -initrd "$image" -append 'console=ttyS0 quiet panic=-1' </dev/null 2>&1 |
        tr -d '\r' | tee "$CACHE/kernel-$1.log" || true
    rm -f "$image"
}

# expect SERIES PATTERN...: each pattern is in what was said.
expect() {
    local said series=$1 pattern
    shift
    said=$(boot "$series")
    for pattern in "$@"; do
        grep -qE "$pattern" <<<"$said" || {
            tail -n 30 <<<"$said" >&2
            die "Linux $series: nothing like '$pattern'"
        }
    done
}

step "build" cargo build --quiet --locked --manifest-path "$ROOT/Cargo.toml"
step "Linux 6.12: every hook is exact" expect 6.12 \
    '^auto stdout: .*"hook":"netfilter".*"exact":true' '^auto exit code: 0$' \
    '^netfilter exit code: 0$' '^tcx exit code: 0$' '^clsact exit code: 0$'
step "Linux 6.1: clsact is exact, what is missing is said" expect 6.1 \
    '^auto stdout: .*"hook":"clsact".*"exact":true' '^auto exit code: 0$' '^clsact exit code: 0$' \
    '^netfilter stderr: meridian: Linux 6\.1[^ ]* has no netfilter eBPF programs' '^netfilter exit code: 1$' \
    '^tcx stderr: meridian: Linux 6\.1[^ ]* has no tcx' '^tcx exit code: 1$'
