#!/usr/bin/env bash
# Runs what the continuous integration runs: test.sh
# Runs some tests only, without the checks before them: test.sh tests/unit -k name
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

in_checkout || fail "The tests need a checkout of claude-coordination; this is an installed package ($root)." 2
prepare dev
cd -- "$root"
export PATH="$venv/bin:$PATH"
unset PYTHONPATH PYTHONHOME COORDINATION_HOME
if [ $# -gt 0 ]; then exec python -m pytest "$@"; fi

prepare_claude
check() {
  say "== $*"
  "$@"
}
check ruff check .
check ruff format --check .
check mypy
check lint-imports --no-cache --no-logo
check shellcheck --external-sources scripts/*.sh .ci/run
say "== pytest"
exec python -m pytest -n auto --cov --cov-report=term-missing
