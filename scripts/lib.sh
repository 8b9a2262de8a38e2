# shellcheck shell=bash
# Shared by the other scripts: the paths of caches, and the display of steps. Sourced, not run.
# shellcheck disable=SC2034 # what is set here is used there
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Downloads, built tools and build output live outside the clone, so that a fresh clone is warm.
CACHE=${MERIDIAN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/meridian}
mkdir -p "$CACHE"

say() { printf '%s\n' "$*" >&2; }

die() {
    say "error: $*"
    exit 1
}

# step NAME COMMAND...: runs the command, then prints the seconds that it took.
step() {
    local name=$1 start=$SECONDS code
    shift
    say "==> $name"
    # Not in a condition: bash would ignore errors inside a function then.
    set +e
    (set -e && "$@")
    code=$?
    set -e
    [ "$code" = 0 ] || die "$name failed"
    say "==> $name: $((SECONDS - start)) s"
}

# skip NAME REASON: says that something is not tried here. scripts/test.sh counts it in MERIDIAN_SKIPPED.
skip() {
    say "==> skipped: $1: $2"
    [ -z "${MERIDIAN_SKIPPED:-}" ] || printf '    %s: %s\n' "$1" "$2" >>"$MERIDIAN_SKIPPED"
}

# hierarchies: the machine's cgroup hierarchies below /sys/fs/cgroup, systemd's own left out.
hierarchies() {
    awk '($3 == "cgroup" || $3 == "cgroup2") && $2 ~ "^/sys/fs/cgroup/[^/]*$" && $2 !~ "/systemd$" { print substr($2, 16) }' /proc/mounts
}

# obstacle_to_nodes: why nodes of scripts/cluster.sh can't run on this machine; empty if they can.
obstacle_to_nodes() {
    [[ $(hierarchies | xargs) = *memory*unified* ]] ||
        echo "nodes need the hierarchies of cgroup v1 and, beside them, cgroup v2 in /sys/fs/cgroup/unified"
}

# alone NAME COMMAND...: runs the command while no other script of this cache runs one under this name.
alone() {
    local name=$1
    shift
    # What the command starts and leaves behind must not hold the lock.
    (
        flock 9
        "$@" 9>&-
    ) 9>"$CACHE/$name.lock"
}

# update_lists: apt's lists of packages anew. dpkg's lock has an option to wait for it, that of the lists has none.
update_lists() {
    local output tries=0
    until output=$(apt-get update -qq 2>&1); do
        if [[ $output != *"Could not get lock"* ]] || [ $((tries += 1)) -gt 300 ]; then
            say "$output"
            return 1
        fi
        sleep 2
    done
}

# need_packages PACKAGE...: installs the Debian packages that are missing, and prints their names.
need_packages() {
    [ -z "$(missing_packages "$@")" ] || alone apt install_missing "$@"
}

missing_packages() {
    local package
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || echo "$package"
    done
}

install_missing() {
    local missing
    # Another script may have installed them meanwhile.
    mapfile -t missing < <(missing_packages "$@")
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "missing packages: ${missing[*]} (no apt-get here: install them by hand)"
    [ "$(id -u)" = 0 ] || die "missing packages: ${missing[*]} (run as root, or: apt-get install ${missing[*]})"
    say "installing ${missing[*]}"
    update_lists || return 1
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq -o DPkg::Lock::Timeout=600 --no-install-recommends "${missing[@]}" >"$CACHE/apt.log" 2>&1 ||
        { tail -n 20 "$CACHE/apt.log" >&2; return 1; }
}

# need_userspace: the packages that `cargo build` needs besides cargo itself.
need_userspace() {
    command -v cargo >/dev/null || die "cargo is not on the PATH: install Rust 1.95 or newer first"
    command -v cc >/dev/null || need_packages gcc libc6-dev
}

# unpack_package PACKAGE: fetches a Debian package without installing it, and prints the path of its contents.
unpack_package() {
    alone apt unpacked_package "$1"
}

unpacked_package() {
    local version dir
    apt-cache show "$1" >/dev/null 2>&1 || update_lists
    version=$(apt-cache show --no-all-versions "$1" | sed -n 's/^Version: //p')
    [ -n "$version" ] || die "there is no package $1"
    dir=$CACHE/packages/$1-$version
    if [ ! -f "$dir/.done" ]; then
        say "fetching $1 $version"
        rm -rf "$dir"
        mkdir -p "$dir"
        (cd "$dir" && apt-get download -qq "$1" 2>/dev/null && dpkg-deb -x ./*.deb . && rm ./*.deb)
        touch "$dir/.done"
    fi
    echo "$dir"
}
