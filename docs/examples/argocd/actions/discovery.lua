-- What can be done with an object as it is: what its status says that there is something to do for.
local status = obj.status or {}
local rollout = status.rollout or {}
local pipeline = obj.kind == "IngestPipeline"
-- A revision that is on its way, beside one that works.
local trial = pipeline and rollout.preview ~= nil and rollout.active ~= nil
local phase = rollout.phase
local waits = phase == "Previewing" or phase == "AwaitingPromotion" or phase == "Verifying"
local ended = phase == "RollingBack" or phase == "Aborted"
-- A query's new text that has caught up and must not take over, unless a person says so.
local refused = false
for _, condition in ipairs(status.conditions or {}) do
  if condition.type == "Progressing" and condition.reason == "TooManyErrors" then
    refused = obj.kind == "WindowQuery" and condition.status == "False"
  end
end

local actions = {}
actions["suspend"] = { ["disabled"] = obj.spec.suspend == true }
actions["resume"] = { ["disabled"] = obj.spec.suspend ~= true }
actions["promote"] = { ["disabled"] = not (trial and waits or refused) }
actions["abort"] = { ["disabled"] = not (trial and not ended) }
actions["retry"] = { ["disabled"] = not (pipeline and ended and rollout.abortedRevision ~= nil) }
actions["redrive"] = { ["disabled"] = not (pipeline and (status.deadLetters or 0) > 0) }
return actions
