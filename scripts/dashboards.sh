#!/usr/bin/env bash
# Generates the dashboards for Grafana.
#
#   dashboards.sh build   writes them into the chart, with the hash of the generator's sources
#   dashboards.sh check   fails if the chart's dashboards are not those of the generator
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

SOURCES=$ROOT/helm/dashboards
KEPT=$ROOT/helm/meridian/files/dashboards
STAMP=$SOURCES/dashboards.stamp

# hash_of FOLDER NAME: the hash of the files with this name pattern, and of their names.
hash_of() {
    (cd "$1" && find . -maxdepth 1 -type f -name "$2" | LC_ALL=C sort | xargs sha256sum) | sha256sum | cut -d ' ' -f 1
}

source_hash() {
    { hash_of "$SOURCES" '*.py' && hash_of "$SOURCES" requirements.txt; } | sha256sum | cut -d ' ' -f 1
}

# library: prepares the generator's library, and prints the Python that has it; fails where it can't be had.
library() {
    local environment
    environment=$CACHE/dashboards-$(sha256sum "$SOURCES/requirements.txt" | cut -c 1-16)
    if [ ! -f "$environment/.done" ]; then
        need_packages python3-venv >&2
        rm -rf "$environment"
        python3 -m venv "$environment" &&
            "$environment/bin/pip" install --quiet --disable-pip-version-check --no-deps --require-hashes \
                --requirement "$SOURCES/requirements.txt" >&2 &&
            touch "$environment/.done"
    fi
    [ -f "$environment/.done" ] && echo "$environment/bin/python"
}

# generate PYTHON FOLDER
generate() {
    PYTHONDONTWRITEBYTECODE=1 "$1" "$SOURCES" "$2"
}

case ${1:-} in
build)
    python=$(library) || die "the library of helm/dashboards/requirements.txt can't be installed"
    mkdir -p "$KEPT"
    rm -f "$KEPT"/*.json
    generate "$python" "$KEPT"
    {
        echo "# Written by \`make dashboards\`: hashes of the generator's sources and of the dashboards."
        echo "sources $(source_hash)"
        echo "dashboards $(hash_of "$KEPT" '*.json')"
    } >"$STAMP"
    say "wrote $(find "$KEPT" -name '*.json' | wc -l) dashboards into ${KEPT#"$ROOT"/}"
    ;;
check)
    stamped() { sed -n "s/^$1 //p" "$STAMP" 2>/dev/null || true; }
    if [ "$(stamped sources)" != "$(source_hash)" ] || [ "$(stamped dashboards)" != "$(hash_of "$KEPT" '*.json')" ]; then
        die "the chart's dashboards are not those of helm/dashboards: run \`make dashboards\` and commit the result"
    fi
    if python=$(library); then
        fresh=$(mktemp -d)
        trap 'rm -r "$fresh"' EXIT
        generate "$python" "$fresh"
        diff -r "$fresh" "$KEPT" >&2 || die "the generator makes other dashboards: run \`make dashboards\`"
    else
        skip "generating the dashboards" "the library of helm/dashboards/requirements.txt can't be installed"
    fi
    ;;
*) die "usage: dashboards.sh build|check" ;;
esac
