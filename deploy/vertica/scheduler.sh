#!/bin/sh
# Vertica's microbatch scheduler for tap53's topic of records in the flat profile. NOT TESTED on Vertica.
# Each step names the document that it follows; docs/vertica.md has the list, and the open questions.
#
# First: tap53 schema --profile flat --ddl vertica --table public.dns_transactions > dns_transactions.sql
# scheduler.conf, with mode 600, for vkconfig [1]:
#   username=loader
#   password=...
#   dbhost=vertica-1
#   dbport=5433
#   config-schema=tap53_scheduler
set -eu
conf=${1:?usage: scheduler.sh SCHEDULER_CONF}
brokers=${BROKERS:?as kafka-1:9092,kafka-2:9092}
registry=${REGISTRY:?as http://registry:8081}
partitions=${PARTITIONS:?number of the partitions of the topic}
topic=${TOPIC:-dns-transactions}

# A pool for the scheduler, so that loads and queries do not starve each other [2]. Its concurrency must
# cover the microbatches of a frame: one here.
vsql -c "CREATE RESOURCE POOL tap53_loads PLANNEDCONCURRENCY 1"
vsql -f dns_transactions.sql

# A frame is the time in which each microbatch gets a turn; 10 s is the default [3]. There was an
# --eof-timeout-ms in 8.1; since 11.0 the scheduler's table has no such column, so it is not set [4].
vkconfig scheduler --conf "$conf" --create --frame-duration 00:00:10 --config-refresh 00:01:00 \
    --resource-pool tap53_loads
vkconfig cluster --conf "$conf" --create --cluster dns --hosts "$brokers"
vkconfig source --conf "$conf" --create --cluster dns --source "$topic" --partitions "$partitions"
vkconfig target --conf "$conf" --create --target-schema public --target-table dns_transactions

# The id of each message selects its schema. With a subject and a version, one schema would read all
# messages, and an incompatible message would fail the COPY [5]. Without enforce_length, a text that is too
# wide is silently truncated. Without reject_on_materialized_type_error, a value of another type becomes
# null [6].
vkconfig load-spec --conf "$conf" --create --load-spec tap53 --parser KafkaAvroParser \
    --parser-parameters "schema_registry_url='$registry',enforce_length=true,reject_on_materialized_type_error=true"

# Rejected messages go to a separate table [7]; Vertica creates it.
vkconfig microbatch --conf "$conf" --create --microbatch dns --load-spec tap53 \
    --add-source "$topic" --add-source-cluster dns \
    --target-schema public --target-table dns_transactions \
    --rejection-schema public --rejection-table dns_transactions_rejected

# Two may be launched on different hosts: one loads, the other is on standby [8].
vkconfig launch --conf "$conf"
