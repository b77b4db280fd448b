SELECT n
FROM events
WHERE EXISTS (SELECT 1 FROM json_each(fields, '$."Image"') WHERE
    lower(value) IN ('pwsh', 'powershell')
    OR lower(substr(CAST(value AS BLOB), -15)) = '\powershell.exe'
    OR lower(substr(CAST(value AS BLOB), -9)) = '\pwsh.exe'
  )
  AND EXISTS (SELECT 1 FROM json_each(fields, '$."CommandLine"') WHERE
    instr(lower(value), '100% d''or') > 0
  )
  AND NOT EXISTS (SELECT 1 FROM json_each(fields, '$."User"') WHERE mutt_fits(value, 'été?*'))
  AND EXISTS (SELECT 1 FROM json_each(fields, '$."ParentImage"') WHERE value IS NOT NULL)
  AND EXISTS (SELECT 1 FROM json_each(fields, '$."Port"') WHERE value = '443')
