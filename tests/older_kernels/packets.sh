# Captures one DNS transaction with the example `packets` at each of /hooks.
for hook in $(cat /hooks); do
    echo "tap53-test hook $hook"
    packets=/tmp/$hook.packets
    : >$packets
    /bin/ip netns exec server packets s0 $hook >$packets 2>&1 &
    program=$!
    wait_for $packets attached $program 240
    exchange /cgroups
    wait_for $packets "egress 6 $(cat /answered)" $program 10
    kill -TERM $program
    wait $program
    sed 's/^/tap53-test packets /' $packets
done
