#!/usr/bin/env bash
# Checks the log of a repository by replaying it: repair.sh [--repo DIR]
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

split "$@"
kept=()
for argument in ${rest[@]+"${rest[@]}"}; do
  case $argument in
    --repair-all) ;;
    *) kept+=("$argument") ;;
  esac
done
prepare ""
say "Repair comes with a later version: nothing is changed. The log is replayed and compared with what was saved of it."
exec "$COORD" -C "$repo" replay --verify ${kept[@]+"${kept[@]}"}
