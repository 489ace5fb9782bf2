-- What can be done with an object as it is. Requests are offered where the operator says that it answers them (status.handledRequests).
local status = obj.status or {}
local answers = status.handledRequests ~= nil
local trial = answers and status.previewRevision ~= nil
local phase = status.rollout ~= nil and status.rollout.phase or nil

local actions = {}
actions["suspend"] = { ["disabled"] = obj.spec.suspend == true }
actions["resume"] = { ["disabled"] = obj.spec.suspend ~= true }
actions["promote"] = { ["disabled"] = not trial }
actions["abort"] = { ["disabled"] = not trial }
actions["retry"] = { ["disabled"] = not (answers and (phase == "Aborted" or phase == "Failed")) }
actions["redrive"] = { ["disabled"] = not (answers and (status.deadLetters or 0) > 0) }
return actions
