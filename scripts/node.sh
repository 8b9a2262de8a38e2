# shellcheck shell=bash
# node, and packages of npm outside of the clone. Sourced after lib.sh, not run.
# shellcheck disable=SC2034 # what is set here is used there

# need_node: node and npm, Debian's where there are none.
need_node() {
    { command -v node && command -v npm; } >/dev/null || need_packages nodejs npm
}

# node_packages FOLDER: sets PACKAGES to a copy of the folder below the cache, with the packages of its lock file.
node_packages() {
    local lock
    need_node
    lock=$(sha256sum <"$1/package-lock.json" | cut -c 1-16)
    PACKAGES=$CACHE/node/$(basename "$1")-$lock-$(cd "$1" && pwd | sha256sum | cut -c 1-8)
    mkdir -p "$PACKAGES"
    exec {NODE_LOCK}>"$PACKAGES/.lock"
    # Two runs at once would remove each other's files.
    flock "$NODE_LOCK"
    if [ ! -f "$PACKAGES/.done" ]; then
        say "fetching the packages of ${1#"$ROOT"/}"
        cp "$1/package.json" "$1/package-lock.json" "$PACKAGES/"
        (cd "$PACKAGES" && npm ci --ignore-scripts --no-audit --no-fund --silent >&2)
        touch "$PACKAGES/.done"
    fi
    find "$PACKAGES" -mindepth 1 -maxdepth 1 -not -name node_modules -not -name '.done' -not -name '.lock' -exec rm -r {} +
    (cd "$1" && find . -type f -not -path './node_modules/*' -not -name '.gitignore' -print0 | xargs -0 cp --parents -t "$PACKAGES")
}
