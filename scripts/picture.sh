#!/usr/bin/env bash
# Takes the picture of the page that README.md shows, on the traffic of a demo: docs/page.png.
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

MERIDIAN_PICTURE=$ROOT/docs/page.png exec "$ROOT/scripts/test-page.sh" "picture"
