# Runs doctor, and captures one DNS transaction with the agent at each of /hooks.
/bin/ip netns exec server tap53 doctor -i s0 | sed 's/^/tap53-test doctor /'

# The client's container.
container=/cgroups/docker/$(cat /container)
mkdir -p $container
echo "containers: {cgroup_root: /cgroups, processes: true}" >/tmp/tap53.yaml
cat /config >>/tmp/tap53.yaml

for hook in $(cat /hooks); do
    echo "tap53-test hook $hook"
    # Separate files: records of the previous run must not be taken for those of this one.
    records=/tmp/$hook.records log=/tmp/$hook.log
    : >$records
    : >$log
    /bin/ip netns exec server tap53 run --config /tmp/tap53.yaml -i s0 --hook $hook --json >$records 2>$log &
    agent=$!
    wait_for $log ready $agent 240
    exchange $container
    # The record is written when query and response are matched.
    wait_for $records qname $agent 10
    kill -TERM $agent
    wait $agent
    echo "tap53-test status $?"
    sed 's/^/tap53-test log /' $log
    sed 's/^/tap53-test record /' $records
done
