#!/usr/bin/env bash
# The page in a real browser, on the traffic of a demo, in a network namespace of its own: nothing but loopback is
# there, and other runs are not disturbed.
#
#   test-page.sh [PART_OF_A_NAME...]   pictures are in $MERIDIAN_PICTURES, or below the cache
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/node.sh
. "$(dirname "${BASH_SOURCE[0]}")/node.sh"

SCHEMATHESIS_VERSION=4.32.5

# fuzzer: the path of schemathesis.
fuzzer() {
    local tool=$CACHE/schemathesis-$SCHEMATHESIS_VERSION
    if [ ! -x "$tool/bin/schemathesis" ]; then
        need_packages python3-venv
        python3 -m venv "$tool" &&
            "$tool/bin/pip" install --quiet --disable-pip-version-check "schemathesis==$SCHEMATHESIS_VERSION"
    fi
    echo "$tool/bin/schemathesis"
}

command -v chromium >/dev/null || need_packages chromium
need_packages iproute2
node_packages "$ROOT/plugin/tests/page"
TARGET=${CARGO_TARGET_DIR:-$CACHE/target}
[ -n "${MERIDIAN_BINARY:-}" ] || CARGO_TARGET_DIR=$TARGET cargo build --quiet --locked --manifest-path "$ROOT/Cargo.toml"
SCHEMATHESIS=$(fuzzer)
export SCHEMATHESIS
export MERIDIAN_BINARY=${MERIDIAN_BINARY:-$TARGET/debug/meridian}
export MERIDIAN_PICTURES=${MERIDIAN_PICTURES:-$CACHE/pictures}
mkdir -p "$MERIDIAN_PICTURES"
cd "$PACKAGES"
names=()
for name in "$@"; do names+=(--test-name-pattern "$name"); done
FILE=page.test.mjs
if [ -n "${MERIDIAN_PICTURE:-}" ]; then FILE=picture.test.mjs; fi
if [ -n "${MERIDIAN_BENCH:-}" ]; then FILE=bench.test.mjs; fi
exec unshare --net -- sh -c 'ip link set lo up && exec "$@"' sh \
    node --test --test-reporter=spec "${names[@]}" "$FILE"
