-- How the loads go. NOT RUN; columns as documented for 11.0 (docs/vertica.md [9], [10]).

-- Each microbatch: which offsets, how many messages, why it ended. END_OF_STREAM is good; DEADLINE, frame
-- after frame, means that loading does not keep up.
SELECT source_name, source_partition, start_offset, end_offset, end_reason, partition_messages
FROM tap53_scheduler.stream_microbatch_history
ORDER BY source_partition, start_offset DESC
LIMIT 100;

-- What was rejected, by reason.
SELECT rejected_reason, count(*) FROM public.dns_transactions_rejected GROUP BY rejected_reason;

-- Records that came twice: the scheduler loads each message once, and an agent's spool may send a record
-- twice. Vertica enforces no key unless asked, so they are there twice.
SELECT record_id, count(*) FROM public.dns_transactions GROUP BY record_id HAVING count(*) > 1 LIMIT 100;
