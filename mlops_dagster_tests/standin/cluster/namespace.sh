#!/bin/bash
# Give a task a root of its own in which /dbfs and /Volumes are real paths: libraries in Rust or Java do their own I/O.
# Started by `unshare -m` (root) or `unshare -rm` (anybody else), so nothing here is seen outside.
# usage: namespace.sh NEW_ROOT STATE MOUNTS(a:b) PRIVATE_TMP(or "") HIDDEN(a:b) SHARED(a:b) command...
set -e
new=$1 state=$2 mounts=$3 tmp=$4 hidden=$5 shared=$6
shift 6
mount -t tmpfs tmpfs "$new"
for entry in /*; do
  if [ -L "$entry" ]; then
    ln -s "$(readlink "$entry")" "$new$entry"
  elif [ -d "$entry" ] && ! { [ "$entry" = /tmp ] && [ -n "$tmp" ]; }; then
    mkdir "$new$entry"
    mount --rbind "$entry" "$new$entry"
  fi
done
if [ -n "$tmp" ]; then # a cluster has a disk of its own
  mkdir "$new/tmp"
  mount --bind "$tmp" "$new/tmp"
  IFS=:
  for folder in $shared; do
    case "$folder" in /tmp/*)
      if [ -d "$folder" ]; then mkdir -p "$new$folder"; mount --bind "$folder" "$new$folder"; fi ;;
    esac
  done
  unset IFS
fi
IFS=:
for folder in $mounts; do
  mkdir -p "$new/$folder"
  mount --bind "$state/$folder" "$new/$folder"
done
for folder in $hidden; do
  if [ -d "$new$folder" ]; then mount -t tmpfs tmpfs "$new$folder"; fi
done
unset IFS
exec chroot "$new" /bin/bash -c 'cd "$0" && unset OLDPWD SHLVL && exec "$@"' "$PWD" "$@"
