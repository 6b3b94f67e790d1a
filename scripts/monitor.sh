#!/usr/bin/env bash
# Shows what happens in a repository: monitor.sh [--repo DIR] [--status | --agents | --live]
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

split "$@"
view=--status
if [ ${#rest[@]} -gt 0 ]; then
  case ${rest[0]} in
    --status | --agents | --live)
      view=${rest[0]}
      rest=("${rest[@]:1}")
      ;;
  esac
fi
prepare ""
case $view in
  --live) exec "$COORD" -C "$repo" monitor ${rest[@]+"${rest[@]}"} ;;
  --agents) exec "$COORD" -C "$repo" monitor --agents ${rest[@]+"${rest[@]}"} ;;
esac
exec "$COORD" -C "$repo" status ${rest[@]+"${rest[@]}"}
