-- Calls in flight, and what their holds may cost in nano-USD; NULL where none has a price.
SELECT count(*) AS calls, sum(cost_est_nusd) AS nano
FROM open_hold JOIN event ON event.event_id = open_hold.hold_id
