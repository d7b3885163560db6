-- The events that change balances.
SELECT event_type, call_id, profile_id, spend_nusd, estimated, charges
FROM event
WHERE event_type IN ('commit', 'adjust', 'retry')
