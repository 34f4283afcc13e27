#!/bin/sh
# Stops the service when the package is removed, and not when it is upgraded: rpm passes the number of
# packages that stay, dpkg the word "remove".
set -e
case "$1" in
    0 | remove)
        if [ -d /run/systemd/system ]; then
            systemctl disable --now tap53.service
        fi
        ;;
esac
