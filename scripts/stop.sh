#!/usr/bin/env bash
# Stops the coordinator of a repository: stop.sh [--repo DIR] [--drain | --force] [--timeout SECONDS]
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

split "$@"
prepare ""
exec "$COORD" -C "$repo" stop ${rest[@]+"${rest[@]}"}
