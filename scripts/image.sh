#!/usr/bin/env bash
# Checks the image's contents: the binary is small, needs no other file, and works in an empty root.
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

LIMIT=$((30 * 1024 * 1024))

binary=$("$ROOT/scripts/static.sh")
bytes=$(stat -c %s "$binary")
[ "$bytes" -le "$LIMIT" ] || die "the binary has $bytes bytes, more than $LIMIT"

empty=$(mktemp -d)
trap 'rm -r "$empty"' EXIT
cp "$binary" "$empty/meridian"
# Only the binary.
chroot "$empty" /meridian --version >&2
chroot "$empty" /meridian config reference >/dev/null
# With the kernel's file systems, as in a container.
mkdir "$empty/proc" "$empty/sys"
# shellcheck disable=SC2016 # the inner shell expands it
said=$(unshare --mount sh -c 'mount --rbind /proc "$0/proc" && mount --rbind /sys "$0/sys" &&
    exec chroot "$0" /meridian check --uplink lo' "$empty" || true)
grep -q '^ok  *netfilter  *the kernel takes the programs' <<<"$said" || die "in an empty root: $said"
say "the static binary has $bytes bytes and runs in an empty root"
