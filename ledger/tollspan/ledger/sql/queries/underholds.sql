-- Calls that cost more than was held for them. The hold that a commit settles stands in its estimate; a call that held
-- nothing has no precheck_hold. Ids of those: the call's, 01, a sequence number.
SELECT provider, model, count(*) AS calls, sum(spend_nusd - cost_est_nusd) AS excess_nusd
FROM counted AS c
WHERE event_type = 'commit' AND NOT estimated AND spend_nusd > cost_est_nusd
  AND EXISTS (
      SELECT 1 FROM event AS hold
      WHERE hold.event_id BETWEEN CAST(c.call_id || x'0100' AS BLOB) AND CAST(c.call_id || x'01FF' AS BLOB)
  )
GROUP BY provider, model
ORDER BY excess_nusd DESC, provider, model
