#!/usr/bin/env bash
# Prints the bill of materials of the program, in CycloneDX 1.5: every crate that is linked into it, by version, checksum
# and licence, and which needs which.
#
#   sbom.sh           for this machine
#   sbom.sh aarch64   for another one
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need_packages jq
target=${1:-$(uname -m)}-unknown-linux-gnu
# Checksums are in the lock file alone.
checksums=$(awk -F'"' '/^name = / { name = $2 } /^version = / { version = $2 } /^checksum = / { print name "@" version " " $2 }' "$ROOT/Cargo.lock" |
    jq -R -n '[inputs | split(" ") | {key: .[0], value: .[1]}] | from_entries')
cargo metadata --locked --format-version 1 --filter-platform "$target" --manifest-path "$ROOT/Cargo.toml" | jq --argjson checksums "$checksums" '
    def purl: "pkg:cargo/\(.name)@\(.version)";
    (.packages | map({key: .id, value: .}) | from_entries) as $packages
    | (.resolve.nodes | map({key: .id, value: .}) | from_entries) as $nodes
    | (.packages[] | select(.name == "meridian" and .source == null) | .id) as $program
    # What a build script or a test needs is not linked in; what makes code for one is run where it is built.
    | def needs: $nodes[.].deps[] | select(any(.dep_kinds[]; .kind == null)) | .pkg
        | select($packages[.].targets | any(.[].kind[]; . == "proc-macro") | not);
    def linked: {seen: {}, next: [$program]}
        | until(.next == []; .next[0] as $id | .next |= .[1:]
            | if .seen[$id] then . else .seen[$id] = true | .next += [$id | needs] end)
        | .seen | keys;
    linked as $linked
    | def component($kind): $packages[.] | {type: $kind, "bom-ref": purl, name, version, purl: purl}
        + (if .license then {licenses: [{expression: (.license | gsub("/"; " OR "))}]} else {} end)
        + ($checksums["\(.name)@\(.version)"] as $sum | if $sum then {hashes: [{alg: "SHA-256", content: $sum}]} else {} end);
    {
        bomFormat: "CycloneDX", specVersion: "1.5", version: 1,
        metadata: {component: ($program | component("application"))},
        components: [$linked[] | select(. != $program) | component("library")],
        dependencies: [$linked[] | {ref: ($packages[.] | purl), dependsOn: ([needs | $packages[.] | purl] | unique)}],
    }'
