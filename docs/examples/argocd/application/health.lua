-- Health of an Application, of which Argo CD has told nothing since 1.8: it is what that Application says of itself. With it, a wave of
-- Applications that a parent applies waits for the waves before.
local health = obj.status ~= nil and obj.status.health or nil
if health == nil or health.status == nil then
  return { status = "Progressing", message = "Waiting for Argo CD to look at it" }
end
return { status = health.status, message = health.message or "" }
