#!/usr/bin/env bash
# Runs what the continuous integration runs: test.sh
# Runs some tests only, without the checks before them: test.sh tests/unit -k name
# Searches for faults for as long as an hour and keeps the table in docs/proof.md: test.sh --tier2
# Measures us beside others, and prints a table:        test.sh --benchmarks [--quick] [--only P1,P2] [--help]
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

in_checkout || fail "The tests need a checkout of claude-coordination; this is an installed package ($root)." 2
cd -- "$root"
if [ "${1-}" = --benchmarks ]; then
  shift
  prepare benchmarks
  prepare_claude || say "Without Claude Code the benchmarks that drive it are left out."
  unset PYTHONPATH PYTHONHOME COORDINATION_HOME PYTHONDONTWRITEBYTECODE
  exec "$venv/bin/python" -m tests.benchmarks "$@"
fi
prepare dev
export PATH="$venv/bin:$PATH"
# the tests start thousands of Pythons: each would compile everything anew where nothing may be written down
unset PYTHONPATH PYTHONHOME COORDINATION_HOME PYTHONDONTWRITEBYTECODE
if [ "${1-}" = --tier2 ]; then
  shift
  prepare_claude
  many=(tests/e2e/test_storm.py tests/e2e/test_many.py tests/faults tests/integration/test_workspaces_killed.py)
  exec python -m pytest -n auto --dist worksteal tests/laboratory "${many[@]}" --tier 2 --proof docs/proof.md "$@"
fi
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
python -m pytest -n auto --cov --cov-report= --ignore tests/laboratory
# of the laboratory only what reaches the last branches of repair is measured: measuring halves how much can be searched
say "== coverage of the kernel"
python -m pytest -n auto --cov --cov-append --cov-report=term-missing --cov-fail-under=99 tests/laboratory/test_repair.py
say "== laboratory"
exec python -m pytest -n auto tests/laboratory --ignore tests/laboratory/test_repair.py
