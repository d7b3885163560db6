-- What the calls without a price have used.
SELECT DISTINCT unpriced.provider, unpriced.model, used.key AS unit
FROM unpriced, json_each(unpriced.usage) AS used
WHERE used.value > 0
ORDER BY unit
