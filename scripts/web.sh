#!/usr/bin/env bash
# Builds the page from plugin/web.
#
#   web.sh build   builds it into the repository, with the hash of its sources
#   web.sh check   fails if the page in the repository is older than its sources, or too large (needs no node)
#   web.sh fresh   builds it and fails if the result is not the page in the repository
#   web.sh types   prints a folder with the sources and their packages, for an editor
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/node.sh
. "$(dirname "${BASH_SOURCE[0]}")/node.sh"

KEPT=$ROOT/plugin/page
STAMP=$KEPT/page.stamp
# Bytes before compression that a browser loads.
LIMIT=$((150 * 1024))
FILES=(page.js page.css icon.svg licenses.txt)

# The hash of everything that the page is built from, the lock file included.
source_hash() {
    (cd "$ROOT" && find plugin/web -type f -not -path '*/node_modules/*' | LC_ALL=C sort | xargs sha256sum) |
        sha256sum | cut -d ' ' -f 1
}

compile() {
    node_packages "$ROOT/plugin/web"
    (cd "$PACKAGES" && node_modules/.bin/tsc && node_modules/.bin/esbuild src/main.tsx --bundle --minify \
        --target=es2022 --jsx=automatic --jsx-import-source=preact --legal-comments=none \
        --outfile=out/page.js --log-level=warning)
    cp "$ROOT/plugin/web/icon.svg" "$PACKAGES/out/"
    local package
    for package in preact uplot d3-sankey d3-array d3-shape d3-path internmap; do
        [ ! -d "$PACKAGES/node_modules/$package" ] ||
            { echo "== $package" && cat "$PACKAGES/node_modules/$package"/LICENSE* && echo; }
    done >"$PACKAGES/out/licenses.txt"
}

check_size() {
    local size
    size=$(cat "$1/page.js" "$1/page.css" "$1/icon.svg" | wc -c)
    [ "$size" -le "$LIMIT" ] || die "the page is $size bytes: at most $LIMIT"
    say "the page is $size bytes"
}

case ${1:-} in
build)
    compile
    check_size "$PACKAGES/out"
    mkdir -p "$KEPT"
    for file in "${FILES[@]}"; do cp "$PACKAGES/out/$file" "$KEPT/"; done
    {
        echo "# Written by \`make web\`. The hash of the sources decides whether the page is stale."
        echo "sources $(source_hash)"
    } >"$STAMP"
    ;;
check)
    kept=$(sed -n 's/^sources //p' "$STAMP" 2>/dev/null || true)
    [ "$kept" = "$(source_hash)" ] ||
        die "plugin/page is stale: its sources have changed; run \`make web\` and commit the result"
    check_size "$KEPT"
    ;;
fresh)
    compile
    for file in "${FILES[@]}"; do
        cmp "$PACKAGES/out/$file" "$KEPT/$file" || die "plugin/page/$file is not what plugin/web makes: run \`make web\`"
    done
    ;;
types)
    node_packages "$ROOT/plugin/web"
    echo "$PACKAGES"
    ;;
*) die "usage: web.sh build|check|fresh|types" ;;
esac
