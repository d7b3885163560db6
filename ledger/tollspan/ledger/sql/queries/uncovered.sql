-- Calls that no row of the table of call sites covers: seen on the wire only.
SELECT provider, operation, count(*) AS calls
FROM counted
WHERE ends AND category = 'uncovered'
GROUP BY provider, operation
ORDER BY calls DESC, provider, operation
