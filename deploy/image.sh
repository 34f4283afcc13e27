#!/bin/sh
# Creates the root file system of the image: the program and the libraries that it is linked with, and no
# other executable. Run it as root, on Debian 12 or the distribution of the image:
#
#   deploy/image.sh target/release/tap53 DIRECTORY
#
# A static program of another architecture needs the strip of its binutils, in the variable STRIP.
set -eu
program=$1
image=$2
user=65532

install --directory "$image/usr/bin"
# Strips debug information, four fifths of the size; names of functions stay.
"${STRIP:-strip}" --strip-debug -o "$image/usr/bin/tap53" "$program"
chmod 0755 "$image/usr/bin/tap53"
# The capabilities of the container that a user other than root gets. (p: permitted; e: effective from the
# first instruction on.)
setcap cap_bpf,cap_net_admin,cap_perfmon+p "$image/usr/bin/tap53"

# ldd fails for a static program, and says why.
libraries=$(ldd "$program" 2>&1) || case $libraries in
    *"not a dynamic executable"*) libraries= ;;
    *) echo "$libraries" >&2 && exit 1 ;;
esac
echo "$libraries" | grep --only-matching '/[^ ]*' | while read -r library; do
    install -D --mode=0755 "$library" "$image$library"
done

install --directory "$image/etc/tap53/config" "$image/etc/tap53/secrets" "$image/proc" "$image/sys"
install --directory --mode=0770 --owner=0 --group=$user "$image/run/tap53"
echo "tap53:x:$user:$user::/:/nonexistent" > "$image/etc/passwd"
echo "tap53:x:$user:" > "$image/etc/group"
echo "hosts: files dns" > "$image/etc/nsswitch.conf"
