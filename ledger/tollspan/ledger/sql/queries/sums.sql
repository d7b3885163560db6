-- One row for each group of calls: counts, tokens, and spend in nano-USD.
SELECT {groups}
       coalesce(sum(ends), 0) AS calls,
       coalesce(sum(ends AND attempts = 0), 0) AS refused,
       coalesce(sum(ends AND attempts > 0 AND status = 'error'), 0) AS errors,
       coalesce(sum(ends AND http_status = 429), 0) AS rate_limited,
       coalesce(sum(usage ->> 'tokens_in'), 0) AS tokens_in,        -- the usage of an adjust adds to that of its call
       coalesce(sum(usage ->> 'tokens_out'), 0) AS tokens_out,
       coalesce(sum(usage ->> 'tokens_cache_read'), 0) AS tokens_cache_read,
       coalesce(sum(spend_nusd) FILTER (WHERE NOT estimated), 0) AS actual_nusd,
       coalesce(sum(spend_nusd) FILTER (WHERE estimated), 0) AS estimated_nusd,
       count(*) FILTER (WHERE offset IN (SELECT offset FROM unpriced)) AS unpriced
FROM counted
{group_by}
