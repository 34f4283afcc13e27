#!/bin/busybox sh
# First process of the guest: sets up a veth between a client and a server, runs /steps, and switches off.
# Lines that begin with "tap53-test" are for the test; the rest helps to find the cause of a failure.
# busybox prefers its own applets by name. Its ip has too few commands, so ours is called by path.
export PATH=/bin:/applets
/bin/busybox mkdir -p /applets
/bin/busybox --install -s /applets
ln -s busybox /bin/sh
mkdir -p /proc /sys /dev /run /tmp
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mount -t tmpfs run /run
# Where no namespace of the network hides it, as /sys is hidden.
mkdir -p /cgroups
mount -t cgroup2 none /cgroups
echo
echo "tap53-test kernel $(uname -r)"
for module in veth sch_ingress cls_bpf; do insmod /modules/$module.ko || echo "no module $module"; done

/bin/ip netns add server
/bin/ip link add c0 type veth peer name s0 netns server
/bin/ip address add 198.51.100.1/24 dev c0
/bin/ip link set c0 up
/bin/ip -n server address add 198.51.100.2/24 dev s0
/bin/ip -n server link set s0 up
/bin/ip -n server link set lo up

# Returns when the file $1 has the text $2, the process $3 has ended, or some $4 seconds are over.
wait_for() {
    for attempt in $(seq $((10 * $4))); do
        grep -q "$2" "$1" && return
        kill -0 "$3" 2>/dev/null || return
        usleep 100000
    done
}

# The client sends /query over TCP, and the server /response. The client joins the cgroup $1.
exchange() {
    /bin/ip netns exec server nc -l -p 53 -e /bin/answer &
    for attempt in $(seq 100); do
        /bin/ip netns exec server netstat -ltn | grep -q ':53 ' && break
        usleep 50000
    done
    sh -c "echo \$\$ >$1/cgroup.procs; echo tap53-test pid \$\$; exec nc -w 10 198.51.100.2 53 </query >/dev/null"
}

. /steps
echo "tap53-test end"
reboot -f
