#!/usr/bin/env bash
# Looks for damage, and with --apply repairs it after a backup: repair.sh [--repo DIR] [--apply | --repair-all]
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

split "$@"
kept=()
for argument in ${rest[@]+"${rest[@]}"}; do
  case $argument in
    --repair-all) kept+=(--apply) ;;
    *) kept+=("$argument") ;;
  esac
done
prepare ""
exec "$COORD" -C "$repo" repair ${kept[@]+"${kept[@]}"}
