#!/bin/sh
# Creates the user and the directory of records. The service is not started: an administrator decides
# which interfaces are captured first.
set -e
if [ -x /usr/bin/systemd-sysusers ]; then
    systemd-sysusers tap53.conf
elif ! getent passwd tap53 > /dev/null; then
    useradd --system --home-dir /var/lib/tap53 --shell /usr/sbin/nologin tap53
fi
install -d -m 0750 -o tap53 -g tap53 /var/lib/tap53 /var/lib/tap53/records
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    # An upgrade: the new program takes over.
    systemctl try-restart tap53.service
fi
