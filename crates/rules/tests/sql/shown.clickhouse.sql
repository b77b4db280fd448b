SELECT n
FROM events
WHERE arrayExists(v ->
    has(['pwsh', 'powershell'], lower(v))
    OR endsWith(lower(v), '\\powershell.exe')
    OR endsWith(lower(v), '\\pwsh.exe')
  , fields['Image'])
  AND arrayExists(v -> position(lower(v), '100% d\'or') > 0, fields['CommandLine'])
  AND NOT arrayExists(v -> translateUTF8(lower(v), 'É', 'é') LIKE 'été_%', fields['User'])
  AND notEmpty(fields['ParentImage'])
  AND arrayExists(v -> v = '443', fields['Port'])
