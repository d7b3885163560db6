-- What the ledger has of each day, provider and model, and what may keep it from being what the provider bills.
SELECT window_start('day', call_id) AS day, provider, model,
       coalesce(sum(ends), 0) AS calls,
       coalesce(sum(spend_nusd), 0) AS spent,
       coalesce(sum(spend_nusd) FILTER (WHERE estimated), 0) AS estimated,
       coalesce(sum(spend_nusd) FILTER (WHERE operation = 'reconcile'), 0) AS settled,
       coalesce(sum(usage ->> 'tokens_in'), 0) + coalesce(sum(usage ->> 'tokens_out'), 0) AS tokens,
       coalesce(sum(usage ->> 'tokens_cache_read'), 0) AS cached,
       count(*) FILTER (WHERE offset IN (SELECT offset FROM unpriced)) AS unpriced,
       count(*) FILTER (WHERE ends AND category = 'uncovered') AS uncovered,
       count(*) FILTER (WHERE ends AND category = 'foreign') AS foreign_,
       count(*) FILTER (WHERE event_type = 'cancel' AND attempts > 0) AS unbilled,
       count(*) FILTER (WHERE event_type = 'commit' AND usage = '{{}}' AND spend_nusd IS NOT 0) AS unknown,
       count(*) FILTER (WHERE ends AND usage LIKE '%@%') AS behind,
       count(*) FILTER (WHERE ends AND timestamp >= window_start('day', call_id) + 86400) AS overnight,
       coalesce(sum(spend_nusd) FILTER (WHERE ends AND timestamp >= window_start('day', call_id) + 86400), 0)
           AS overnight_spent
FROM counted
GROUP BY day, provider, model
