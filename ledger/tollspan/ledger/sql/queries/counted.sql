-- The events that count in figures, for the other statements to read from.
-- A call counts where it began, as it does in budgets: `first` and `last` bound the first 6 bytes of its id. The bound
-- on `timestamp` only narrows the scan. A cancel ends its call when it is number 0; any other gives one hold back.
WITH counted AS (
    SELECT *, event_type IN ('commit', 'cancel') AS ends
    FROM event
    WHERE timestamp >= :scan_from
      AND call_id >= :first AND call_id < :last
      AND event_type IN ('commit', 'cancel', 'adjust', 'retry')
      AND (event_type <> 'cancel' OR substr(event_id, -1) = x'00')
      AND (:user_id IS NULL OR user_id = :user_id)
),
-- Commits without a price that no adjust has given one since, but for one that was taken back. Ids of adjusts: the
-- call's, 04, a sequence number.
unpriced AS (
    SELECT * FROM counted AS c
    WHERE event_type = 'commit' AND spend_nusd IS NULL
      AND (
          SELECT coalesce(sum(iif(later.category = 'undo', -1, 1)), 0) FROM event AS later
          WHERE later.event_id BETWEEN CAST(c.call_id || x'0400' AS BLOB) AND CAST(c.call_id || x'04FF' AS BLOB)
            AND later.spend_nusd IS NOT NULL
      ) <= 0
)
