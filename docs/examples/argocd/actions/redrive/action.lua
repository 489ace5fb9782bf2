-- A request with an id of its own; the operator answers it once, in status.handledRequests.
local os = require("os")
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["drover.dev/redrive"] = os.date("!%Y-%m-%dT%XZ")
return obj
