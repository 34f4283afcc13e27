# Installs the packages named as arguments, without starting any daemon they bring.
set -eu

policy=/usr/sbin/policy-rc.d
kept=$policy.before-tap53

restore() {
    rm -f "$policy"
    if [ -e "$kept" ]; then mv "$kept" "$policy"; fi
}

# What a killed run left behind.
if [ -e "$policy" ] && grep -q 'placed by tap53' "$policy"; then restore; fi

# Exit status 101 forbids every start (/usr/share/doc/init-system-helpers/README.policy-rc.d).
trap restore EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
if [ -e "$policy" ]; then mv "$policy" "$kept"; fi
printf '#!/bin/sh\n# placed by tap53, removed at the end of its setup\nexit 101\n' >"$policy"
chmod 755 "$policy"

had_unbound=$(command -v unbound || true)
had_postgres=$(command -v pg_ctlcluster || true)

export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -q -y --no-install-recommends "$@"

# Not now, and not at the next boot either.
if [ -z "$had_unbound" ] && command -v unbound >/dev/null && command -v systemctl >/dev/null; then
    systemctl disable unbound.service unbound-resolvconf.service || true
fi
if [ -z "$had_postgres" ] && command -v pg_ctlcluster >/dev/null && command -v systemctl >/dev/null; then
    systemctl disable postgresql.service || true
fi
