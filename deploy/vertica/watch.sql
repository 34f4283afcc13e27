-- The progress of the loads. NOT TESTED; columns as documented for 11.0 (docs/vertica.md [9], [10]).

-- Each microbatch: its offsets, number of messages, and reason for the end. END_OF_STREAM is normal; DEADLINE
-- in every frame means that loading is too slow.
SELECT source_name, source_partition, start_offset, end_offset, end_reason, partition_messages
FROM tap53_scheduler.stream_microbatch_history
ORDER BY source_partition, start_offset DESC
LIMIT 100;

-- Rejected messages by reason.
SELECT rejected_reason, count(*) FROM public.dns_transactions_rejected GROUP BY rejected_reason;

-- Duplicates: the scheduler loads each message once, but an agent's spool may send a record twice. Vertica
-- does not enforce keys by default, so the table has both.
SELECT record_id, count(*) FROM public.dns_transactions GROUP BY record_id HAVING count(*) > 1 LIMIT 100;
