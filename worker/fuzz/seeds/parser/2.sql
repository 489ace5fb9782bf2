SELECT CASE WHEN a LIKE 'x%[a-z]' ESCAPE '!' THEN CAST(b AS nvarchar(max)) ELSE NULL END AS c, e.ArrayValue FROM x CROSS APPLY GetArrayElements(x.y) AS e WHERE NOT a IS NULL OR b IN (1, 2.5e3, 'z')
