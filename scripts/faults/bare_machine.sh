#!/bin/sh
# Do scripts/demo and scripts/test pass on a bare Debian? Makes one, clones this commit into it, runs both.
#
#   scripts/faults/bare_machine.sh [bookworm|trixie] [ARGUMENTS OF scripts/test]
#
# The Debian has git, python3 and pip and nothing else: no libGL, no Chromium, no Xvfb, no fonts. Both commands run in it
# as an ordinary user with an empty HOME, no LANG and TERM=dumb, in a folder with a space and Korean letters in its name.
# It is a folder of BARE_FOLDER (or TMPDIR, or /tmp), 4 GB, entered with chroot; BARE_KEEP=1 keeps it. BARE_SYSTEM=1 runs
# scripts/test once more after root has run `scripts/bootstrap dev --system`.
# Needs root and debootstrap. Debian and Python packages come from where this machine gets its own: the mirror in apt's
# sources, pip's configuration files and PIP_* variables. Prints a table, and leaves with 1 if a command failed.
set -eu

say() { printf 'bare machine: %s\n' "$*" >&2; }

fail() {
  say "$*"
  exit 2
}

CDPATH='' cd -- "$(dirname -- "$0")/../.."
suite=bookworm
case ${1-} in
  bookworm | trixie)
    suite=$1
    shift
    ;;
  '' | -* | tests*) ;;
  *) fail "takes bookworm or trixie, then arguments of scripts/test; found '$1'" ;;
esac
[ "$(id -u)" = 0 ] || fail "wants root, for debootstrap and chroot"
for program in debootstrap chroot unshare git; do
  command -v $program >/dev/null || fail "there is no $program here: apt-get install debootstrap util-linux git"
done
# In mounts of its own: whatever becomes of this script, the machine never sees what it mounts.
if [ "${BARE_MOUNTS-}" != "$$" ]; then
  export BARE_MOUNTS=$$
  exec unshare --mount --propagation private sh scripts/faults/bare_machine.sh "$suite" "$@"
fi

folder=$(mktemp -d "${BARE_FOLDER:-${TMPDIR:-/tmp}}/bare_XXXXXX")
folder=$(CDPATH='' cd -- "$folder" && pwd -P) # As /proc names it.
root=$folder/$suite
user=newcomer
home=/home/$user
path=/usr/local/bin:/usr/bin:/bin
place="$home/내 폴더/shard stream"

# Processes in the Debian, by their ids.
left_over() {
  for process in /proc/[0-9]*; do
    case $(readlink "$process/root" 2>/dev/null) in
      "$root") printf '%s\n' "${process#/proc/}" ;;
    esac
  done
}

end_left_over() {
  while processes=$(left_over) && [ -n "$processes" ]; do
    # shellcheck disable=SC2086 # A list of ids. What has just ended is no error.
    kill -KILL $processes 2>/dev/null || true
    sleep 0.1
  done
}

# Mounts in $folder; /proc/self/mounts has \040 for a space.
mounts() {
  while read -r _ target _; do
    target=$(printf '%b' "$target")
    case $target in
      "$folder"/*) printf '%s\n' "$target" ;;
    esac
  done </proc/self/mounts
}

clean_up() {
  trap '' HUP INT TERM
  set +e # Whatever fails, the rest has to be cleaned up all the same.
  if [ -n "$child" ]; then
    kill "$child" 2>/dev/null && wait "$child"
  fi
  end_left_over
  # Deepest first. Lazily, as a process that was killed may hold one for a moment still.
  mounts | sort -r | while read -r target; do
    umount --lazy "$target"
  done
  if [ "${BARE_KEEP-}" = 1 ] || [ -n "$(mounts)" ]; then
    say "kept $folder"
    return
  fi
  rm -rf --one-file-system "$root"
  if [ "$status" = 0 ]; then
    rm -rf "$folder"
  else
    say "the logs are in $folder"
  fi
}
child=
status=1 # Until both commands have passed.
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# A shell handles signals while it waits, and not while a command runs in its foreground.
attentively() {
  "$@" &
  child=$!
  code=0
  wait $child || code=$?
  child=
  return $code
}

mirror() {
  # shellcheck source=/dev/null
  . /etc/os-release
  # shellcheck disable=SC2016 # Names of apt's fields.
  apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Identifier: Packages' 2>/dev/null |
    sed -n "s/^${VERSION_CODENAME-} main //p" | head -n 1
}

# The folders on this machine that pip is told to look for packages in. The pages of an index link to files beside it.
folders_of_pip() {
  python3 -m pip config list 2>/dev/null | sed -n "s/^[^=]*\(find-links\|index-url\)='\(.*\)'\$/\2/p" |
    sed 's/\\n/ /g' | tr -s ' ' '\n' | sed 's|^file://\(.*\)/[^/]*/*$|\1|' | grep '^/.' | sort -u || true
}

make_root() {
  proxy=$(apt-config shell proxy Acquire::http::Proxy 2>/dev/null) && eval "$proxy"
  # shellcheck disable=SC2154 # The line before sets it.
  [ -z "${proxy-}" ] || export http_proxy="${http_proxy:-$proxy}"
  # shellcheck disable=SC2046 # No mirror is no argument.
  attentively debootstrap --variant=minbase --include=git,python3,python3-pip,ca-certificates "$suite" "$root" \
    $(mirror) >"$folder/debootstrap.log" 2>&1 || {
    tail -n 10 "$folder/debootstrap.log" >&2
    fail "debootstrap failed; the lines above are the end of what it said"
  }
  cp /etc/hosts "$root/etc/hosts"
  cp -L /etc/resolv.conf "$root/etc/resolv.conf"
  cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
  [ ! -e /etc/pip.conf ] || cp /etc/pip.conf "$root/etc/pip.conf"
  [ ! -e /etc/xdg/pip ] || { mkdir -p "$root/etc/xdg" && cp -r /etc/xdg/pip "$root/etc/xdg/pip"; }
  # HOME stays empty: the user's own settings come under another name.
  for settings in "${PIP_CONFIG_FILE-}" "${XDG_CONFIG_HOME:-${HOME-}/.config}/pip/pip.conf" "${HOME-}/.pip/pip.conf"; do
    if [ -f "$settings" ]; then
      cp "$settings" "$root/etc/pip-of-the-caller.conf"
      break
    fi
  done
  chmod -R a+rX "$root/etc/pip"* "$root/etc/xdg" 2>/dev/null || true
  mount -t proc proc "$root/proc"
  mount --rbind /sys "$root/sys"
  mount -t tmpfs -o mode=1777 shm "$root/dev/shm"
  mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
  folders_of_pip | while read -r packages; do
    if [ -d "$packages" ]; then
      mkdir -p "$root$packages"
      mount --bind -o ro "$packages" "$root$packages"
    fi
  done
  mkdir "$root/var/empty"
  chroot "$root" useradd --create-home --skel /var/empty "$user"
}

# in_root FOLDER COMMAND...: as a fresh login of the user would run it, and with this machine's way to packages.
in_root() {
  directory=$1
  shift
  # shellcheck disable=SC2016 # For the shell inside.
  set -- sh -c 'cd "$1" && shift && exec "$@"' sh "$directory" "$@"
  for name in $(env | sed -n 's/^\(PIP_[A-Z_]*\|[a-zA-Z]*_[pP][rR][oO][xX][yY]\|SSL_CERT_FILE\|REQUESTS_CA_BUNDLE\)=.*/\1/p'); do
    value=
    eval "value=\$$name"
    case $name in
      PIP_CONFIG_FILE) continue ;;
      PIP_CERT | SSL_CERT_FILE | REQUESTS_CA_BUNDLE)
        [ -e "$root$value" ] || { mkdir -p "$root${value%/*}" && cp -L "$value" "$root$value"; }
        ;;
    esac
    set -- "$name=$value" "$@"
  done
  [ ! -e "$root/etc/pip-of-the-caller.conf" ] || set -- PIP_CONFIG_FILE=/etc/pip-of-the-caller.conf "$@"
  # What a shell starts in the background ignores Ctrl-C unless told otherwise.
  attentively env --ignore-environment --default-signal=INT,QUIT PATH=/usr/sbin:/usr/bin \
    chroot --userspec="$uid:$uid" --groups= "$root" \
    env PATH="$path" HOME="$home" TERM=dumb "$@"
}

# Runs a command in the clone, and notes a row of the table and why tests were skipped.
try() {
  tried=$((tried + 1))
  log=$folder/$tried.log
  say "$suite runs $*; what it says goes to $log"
  began=$(date +%s)
  exit_code=0
  in_root "$place" "$@" >"$log" 2>&1 </dev/null || exit_code=$?
  secs=$(($(date +%s) - began))
  left=$(left_over | wc -l)
  for process in $(left_over); do
    tr '\0' ' ' <"/proc/$process/cmdline" 2>/dev/null >>"$folder/left_over.log" || true
  done
  end_left_over
  if [ $exit_code != 0 ]; then
    tail -n 60 "$log" >&2
    status=1
  fi
  closing=$(tail -n 1 "$log")
  # shellcheck disable=SC2016 # Markdown.
  printf '| %s, `%s` | %s | %s | %s | %s | %s | %s |\n' "$suite" "$*" "$exit_code" "$(number passed)" "$(number failed)" \
    "$(number skipped)" "$left" "$secs" >>"$folder/table"
  sed -n 's/^ *\([0-9][0-9]*  [^ ].*\)$/\1/p' "$log" | tail -n 40 >>"$folder/reasons"
}

number() {
  found=$(printf %s "$closing" | sed -n "s/^\(.*[^0-9]\)\{0,1\}\([0-9][0-9]*\) $1.*/\2/p")
  printf %s "${found:--}"
}

status=0
tried=0
say "makes a $suite in $folder"
make_root
uid=$(chroot "$root" id -u "$user")
commit=$(git rev-parse --short HEAD)
git bundle create --quiet "$root/var/tmp/shardstream.bundle" HEAD
in_root / git -c advice.detachedHead=false -c init.defaultBranch=main clone --quiet /var/tmp/shardstream.bundle "$place"
try scripts/demo
try scripts/test "$@"
if [ "${BARE_SYSTEM-}" = 1 ]; then
  user_id=$uid uid=0 home=/root path=/usr/sbin:/sbin:$path
  try scripts/bootstrap dev --system
  uid=$user_id home=/home/$user path=${path#*:*:}
  chroot "$root" chown -R "$uid:$uid" "$place"
  try scripts/test "$@"
fi

printf 'Debian %s, %s, TensorFlow %s, %s cores, commit %s\n\n' "$(cat "$root/etc/debian_version")" \
  "$(in_root "$place" .venv/bin/python --version 2>&1 | tail -n 1)" \
  "$(in_root "$place" .venv/bin/python -c 'import importlib.metadata as m; print(m.version("tensorflow"))' 2>&1 | tail -n 1)" \
  "$(nproc)" "$commit"
printf '| command | exit code | passed | failed | skipped | left running | seconds |\n|---|---|---|---|---|---|---|\n'
cat "$folder/table"
if [ -s "$folder/reasons" ]; then
  printf '\n| skipped | reason |\n|---|---|\n'
  sed 's/^\([0-9]*\)  \(.*\)$/| \1 | \2 |/' "$folder/reasons"
fi
exit $status
