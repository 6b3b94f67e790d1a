#!/usr/bin/env bash
# Starts the coordinator in a repository, or shows the whole of it without a key.
#
#   start.sh --demo                    one task from file to merged commit, in a throw-away repository, at no cost
#   start.sh [--repo DIR] [OPTIONS]    coord init (harmless when done already), then coord start OPTIONS
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

demo=
for argument in "$@"; do
  case $argument in
    --demo) demo=yes ;;
    --interactive | --create-examples)
      fail "$argument comes with a later version. Now there are: start.sh --demo, start.sh --repo DIR, and coord submit." 2
      ;;
    -h | --help)
      sed -n '2,/^set /{/^#/s/^# \{0,1\}//p;}' "${BASH_SOURCE[0]}"
      exit 0
      ;;
  esac
done

prepare ""
prepare_claude
if [ "$demo" ]; then
  rest=()
  for argument in "$@"; do [ "$argument" = --demo ] || rest+=("$argument"); done
  exec "$COORD" demo ${rest[@]+"${rest[@]}"}
fi
split "$@"
"$COORD" -C "$repo" init >&2
exec "$COORD" -C "$repo" start ${rest[@]+"${rest[@]}"}
