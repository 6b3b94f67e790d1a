# shellcheck shell=bash
# Sourced by the scripts beside it: makes an environment in which `coord` runs, and sets COORD to it.
#
#   prepare EXTRAS    in a checkout: a virtual environment in .venv with the package and these extras ("" or "dev");
#                     in an installed package: the environment it is installed in, unchanged
#   prepare_claude    installs the Claude Code that comes with claude-agent-sdk, if there is no other
#   split ARGUMENTS   takes `--repo DIR` out of them: sets repo (".") and rest
#
# Nothing is installed twice: .venv/.installed-* remembers what pyproject.toml and which checkout it was made from.

scripts=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
root=$(dirname -- "$scripts")
venv=$root/.venv
COORD=

say() { printf '%s\n' "$*" >&2; }

fail() {
  say "$1"
  exit "${2:-1}"
}

in_checkout() { [ -f "$root/pyproject.toml" ]; }

# Run rather than looked for: a name on PATH may be a shim without an interpreter behind it.
new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
  local name
  for name in python3 python3.14 python3.13 python3.12 python3.11 python; do
    if new_enough "$name"; then
      printf '%s\n' "$name"
      return
    fi
  done
  fail "Python 3.11 or newer is needed; expected it on PATH as python3 or python3.11 … python3.14, found $(python3 --version 2>&1 || printf none). Install it and run this again."
}

make_venv() {
  local python
  if new_enough "$venv/bin/python" && [ -x "$venv/bin/pip" ]; then return; fi
  python=$(find_python)
  "$python" -c 'import ensurepip' 2>/dev/null ||
    fail "$python cannot make a virtual environment: its module ensurepip is missing. On Debian and Ubuntu run: apt install python3-venv"
  say "Making a virtual environment in $venv ($("$python" --version))."
  "$python" -m venv "$venv"
}

# Two scripts started at once must not install over each other. The kernel gives a flock back when its holder dies.
alone() {
  mkdir -p -- "$venv"
  if command -v flock >/dev/null 2>&1; then
    (
      flock -w 900 9 || fail "Another script has been preparing $venv for 15 minutes. Wait for it, or stop it."
      "$@"
    ) 9>"$venv/.preparing.lock"
  else
    alone_by_directory "$@"
  fi
}

alone_by_directory() (
  waited=0
  until mkdir -- "$venv/.preparing" 2>/dev/null; do
    waited=$((waited + 1))
    [ "$waited" -lt 900 ] || fail "Another script is preparing $venv, or one was killed at it. If none runs: rmdir '$venv/.preparing'"
    sleep 1
  done
  trap 'rmdir -- "$venv/.preparing"' EXIT
  "$@"
)

pip_install() { PIP_USER=0 "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@" >&2; }

wanted() { printf '%s %s\n' "$(cksum <"$root/pyproject.toml")" "$root"; }

up_to_date() {
  [ "$(cat -- "$venv/.installed-${1:-plain}" 2>/dev/null)" = "$(wanted)" ] && [ -x "$venv/bin/coord" ] &&
    new_enough "$venv/bin/python"
}

install_package() {
  local extras=$1
  if up_to_date "$extras"; then return; fi # the one we waited for did it
  make_venv
  say "Installing claude-coordination${extras:+ with what its $extras extra needs} into $venv."
  pip_install -e "$root${extras:+[$extras]}"
  wanted | tee -- "$venv/.installed-plain" "$venv/.installed-${extras:-plain}" >/dev/null
}

prepare() {
  if in_checkout; then
    up_to_date "$1" || alone install_package "$1"
    COORD=$venv/bin/coord
  else
    # shellcheck disable=SC2034 # read by the scripts that source this one
    COORD=$(own_coord) || fail "The command coord is missing beside this package ($root). Install claude-coordination again."
  fi
}

# In an installed package we stand in <environment>/lib/pythonX.Y/site-packages/coordination/_shipped.
own_coord() {
  local beside
  beside=$(CDPATH='' cd -- "$root/../../../../.." 2>/dev/null && pwd -P)/bin/coord
  if [ -x "$beside" ]; then printf '%s\n' "$beside"; else command -v coord; fi
}

has_claude() {
  [ -n "${COORDINATION_CLAUDE:-}" ] || command -v claude >/dev/null 2>&1 ||
    "$venv/bin/python" -c 'import importlib.util as u, sys; sys.exit(u.find_spec("claude_agent_sdk") is None)'
}

install_claude() {
  if has_claude; then return; fi
  say "Claude Code is not on PATH: installing the one that comes with claude-agent-sdk into $venv (some 100 MB, once)."
  pip_install -e "${root}[claude]"
}

prepare_claude() {
  if in_checkout && ! has_claude; then alone install_claude; fi
}

split() {
  repo=. rest=()
  while [ $# -gt 0 ]; do
    case $1 in
      --repo)
        [ $# -ge 2 ] || fail "--repo: expected a directory after it, found nothing." 2
        repo=$2
        shift
        ;;
      --repo=*) repo=${1#--repo=} ;;
      *) rest+=("$1") ;;
    esac
    shift
  done
  [ -d "$repo" ] || fail "--repo: expected a directory, found none at $repo." 2
}
