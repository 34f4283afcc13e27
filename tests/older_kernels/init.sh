#!/bin/busybox sh
# First process of the guest: looks at the machine, captures one DNS transaction at each of /hooks, tells,
# and switches off.
# Lines that begin with "tap53-test" are for the test; the rest is for who looks for a failure.
# busybox prefers its own applets by name: its lesser ip is passed over by path.
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

/bin/ip netns exec server tap53 doctor -i s0 | sed 's/^/tap53-test doctor /'

# The client's container.
container=/cgroups/docker/$(cat /container)
mkdir -p $container
echo "containers: {cgroup_root: /cgroups, processes: true}" >/tmp/tap53.yaml
cat /config >>/tmp/tap53.yaml

for hook in $(cat /hooks); do
    echo "tap53-test hook $hook"
    # Files of its own: what the run before wrote must not be taken for this one's.
    records=/tmp/$hook.records log=/tmp/$hook.log
    : >$records
    : >$log
    /bin/ip netns exec server tap53 run --config /tmp/tap53.yaml -i s0 --hook $hook --json >$records 2>$log &
    agent=$!
    while kill -0 $agent 2>/dev/null && ! grep -q ready $log; do usleep 100000; done
    /bin/ip netns exec server nc -l -p 53 -e /bin/answer &
    for attempt in $(seq 100); do
        /bin/ip netns exec server netstat -ltn | grep -q ':53 ' && break
        usleep 50000
    done
    sh -c "echo \$\$ >$container/cgroup.procs; echo tap53-test pid \$\$; exec nc -w 10 198.51.100.2 53 </query >/dev/null"
    # The record is written when query and response have met.
    for attempt in $(seq 100); do
        grep -q qname $records && break
        kill -0 $agent 2>/dev/null || break
        usleep 100000
    done
    kill -TERM $agent
    wait $agent
    echo "tap53-test status $?"
    sed 's/^/tap53-test log /' $log
    sed 's/^/tap53-test record /' $records
done
echo "tap53-test end"
reboot -f
