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
  --live)
    say "The live view comes with a later version. These are the events as they happen; Ctrl-C ends the watching only."
    exec "$COORD" -C "$repo" log --follow ${rest[@]+"${rest[@]}"}
    ;;
  --agents)
    say "A view of the agents alone comes with a later version. This is the whole status, with what runs now."
    ;;
esac
exec "$COORD" -C "$repo" status ${rest[@]+"${rest[@]}"}
