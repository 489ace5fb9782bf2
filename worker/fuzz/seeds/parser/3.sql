SELECT TOPONE() OVER (ORDER BY a DESC, b) AS t, PERCENTILE_CONT(0.5) OVER (ORDER BY v) AS p FROM x GROUP BY HoppingWindow(Duration(hour, 1), Hop(minute, 5), Offset(ms, -1)), k HAVING COUNT(*) > 1
