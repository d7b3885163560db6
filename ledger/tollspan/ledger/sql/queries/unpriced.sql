-- Which calls have no price, and why.
SELECT provider, model, max(reason) AS reason, count(*) AS calls
FROM unpriced
GROUP BY provider, model
ORDER BY calls DESC, provider, model
