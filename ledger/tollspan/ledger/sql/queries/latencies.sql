-- The time that each call which was sent took, in milliseconds, shortest first.
SELECT {groups} timing ->> 'total_ms' AS total_ms
FROM counted
WHERE ends AND attempts > 0 AND timing ->> 'total_ms' IS NOT NULL
ORDER BY total_ms
