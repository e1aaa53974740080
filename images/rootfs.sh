#!/bin/sh
# Lays out the files of an image that starts from nothing: its programs, certificate authorities, and who runs it.
#   usage: rootfs.sh FOLDER NAME PROGRAM [NAME PROGRAM]...
# Each program becomes /usr/bin/NAME; the shared libraries that it is linked to, if any, go where it looks for them.
set -eu
root=$1
shift

mkdir -p "$root/usr/bin" "$root/etc/ssl/certs" "$root/tmp"
chmod 1777 "$root/tmp"
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
printf 'root:x:0:0::/:/nonexistent\nwsfleet:x:65532:65532::/:/nonexistent\n' >"$root/etc/passwd"
printf 'root:x:0:\nwsfleet:x:65532:\n' >"$root/etc/group"
# a static glibc has these two built in, and would load a library for any other
printf 'passwd: files\ngroup: files\nhosts: files dns\n' >"$root/etc/nsswitch.conf"

while [ $# -gt 0 ]; do
    name=$1 program=$2
    shift 2
    cp -L "$program" "$root/usr/bin/$name"
    chmod 755 "$root/usr/bin/$name"
    # ldd fails for a static program
    { ldd "$program" 2>/dev/null || true; } | sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p; s/^[[:space:]]*\(\/[^ ]*\) (.*/\1/p' | while read -r library; do
        mkdir -p "$root$(dirname "$library")"
        cp -L "$library" "$root$library"
    done
done
