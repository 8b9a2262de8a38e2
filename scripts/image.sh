#!/usr/bin/env bash
# Makes the image without docker, and checks it.
#
#   image.sh [aarch64]      builds the program and the image that is deployed, for this machine or another one; checks its
#                           size; writes image and bill of materials, and says how to push it
#   image.sh check PROGRAM  checks that a static program needs nothing beside it, and that its image is made the same twice
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/oci.sh
. "$ROOT/scripts/oci.sh"

# See docs/adr/0012-one-static-binary.md.
LIMIT=$((35 * 1024 * 1024))
VERSION=$(sed -n 's/^appVersion: //p' "$ROOT/helm/meridian/Chart.yaml")

# needs_nothing PROGRAM: it does its work where there is nothing but it.
needs_nothing() {
    local empty output
    empty=$(mktemp -d)
    cp "$1" "$empty/meridian"
    chroot "$empty" /meridian --version >&2
    chroot "$empty" /meridian config reference >/dev/null
    # And what a container has: the kernel's own file systems.
    mkdir "$empty/proc" "$empty/sys"
    # shellcheck disable=SC2016 # the inner shell expands it
    output=$(unshare --mount sh -c 'mount --rbind /proc "$0/proc" && mount --rbind /sys "$0/sys" &&
        exec chroot "$0" /meridian check --uplink lo' "$empty" || true)
    rm -r "$empty"
    grep -q '^ok  *netfilter  *the kernel takes the programs' <<<"$output" || die "in an empty root: $output"
}

# pack PROGRAM ARCH FILE: the image as the Dockerfile makes it. Prints its digest.
pack() { oci_image "$3" "meridian:$VERSION" "$2" 65532:65532 meridian="$1"; }

check() {
    local program=$1 folder first second crates
    needs_nothing "$program"
    folder=$(mktemp -d)
    first=$(pack "$program" "$(uname -m)" "$folder/first.tar")
    sleep 1.1
    second=$(umask 077 && cd / && pack "$program" "$(uname -m)" "$folder/second.tar")
    [ "$first" = "$second" ] || die "the same program makes the images $first and $second"
    cmp "$folder/first.tar" "$folder/second.tar" >&2 || die "the same image makes different archives"
    "$ROOT/scripts/sbom.sh" >"$folder/sbom.json"
    valid "$folder/sbom.json"
    crates=$(jq '.components | length' "$folder/sbom.json")
    rm -r "$folder"
    say "the program runs in an empty root, its image is $first whoever makes it, its bill has $crates crates"
}

# valid FILE: a bill of materials as CycloneDX's own schema has it.
valid() {
    local venv=$CACHE/cyclonedx-$CYCLONEDX_VERSION
    if [ ! -x "$venv/bin/python" ]; then
        need_packages python3-venv
        python3 -m venv "$venv"
        "$venv/bin/pip" install --quiet --disable-pip-version-check "cyclonedx-python-lib[json-validation]==$CYCLONEDX_VERSION" >&2
    fi
    "$venv/bin/python" - "$1" <<'END' || die "the bill of materials is not as its schema has it"
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
error = JsonStrictValidator(SchemaVersion.V1_5).validate_str(open(sys.argv[1]).read())
sys.exit(str(error) if error else 0)
END
}
CYCLONEDX_VERSION=11.12.0

build() {
    local arch=${1:-$(uname -m)} program bytes folder file digest
    program=$("$ROOT/scripts/static.sh" "$arch")
    bytes=$(stat -c %s "$program")
    [ "$bytes" -le "$LIMIT" ] || die "the program has $bytes bytes, more than $LIMIT"
    [ "$arch" != "$(uname -m)" ] || needs_nothing "$program"
    folder=$CACHE/image
    mkdir -p "$folder"
    file=$folder/meridian-$VERSION-$arch.tar
    digest=$(pack "$program" "$arch" "$file")
    "$ROOT/scripts/sbom.sh" "$arch" >"$folder/meridian-$VERSION-$arch.cdx.json"
    cat <<END
$file
    $digest, a program of $bytes bytes
$folder/meridian-$VERSION-$arch.cdx.json
    its bill of materials

To push it (apt-get install skopeo):

    skopeo copy oci-archive:$file docker://REGISTRY/meridian:$VERSION

and to install exactly that: --set image.repository=REGISTRY/meridian --set image.digest=$digest
END
}

case ${1:-} in
    check) check "${2:?which program}" ;;
    *) build "$@" ;;
esac
