-- Health of an IngestPipeline or a WindowQuery, from the conditions that the operator writes.

-- Reasons of what is False that stay until a person acts. Others are waited for: another object of the same sync may end them.
local faults = {
  SecretUnreadable = true, SecretKeyMissing = true, InvalidUri = true,
  AccessRefused = true, VirtualHostRefused = true, AuthenticationFailed = true, DatabaseNotFound = true,
  CertificateUnknownAuthority = true, CertificateWrongName = true, CertificateExpired = true, TlsFailed = true, TlsRequired = true,
  QueueArgumentsDiffer = true, ExchangeDiffers = true, HubRefuses = true, PermissionMissing = true,
  PluginMissing = true, ManagementRefused = true, SecretNotWritten = true, SecretTaken = true, NoRandomness = true,
  ColumnNotFound = true, NoUniqueIndex = true, PrivilegeMissing = true, ColumnTypeUnfit = true, TableUnfit = true,
  SinkElsewhere = true, OtherCluster = true, SchemaTooNew = true, PartitionsShrunk = true,
  InsufficientResources = true, Refused = true, SinkRefuses = true,
  DeadLetterRefused = true, DeadLettersFull = true, NameTooLong = true,
  ImagePullFailed = true, ContainerNotStarted = true, HandlerFails = true, CrashLooping = true,
  Unschedulable = true, QuotaExceeded = true, PodsRefused = true,
}

local status = obj.status
if status == nil or status.conditions == nil then
  return { status = "Progressing", message = "Waiting for the operator" }
end
if obj.metadata.generation ~= nil and status.observedGeneration ~= obj.metadata.generation then
  return { status = "Progressing", message = "Waiting for the operator to see the change" }
end

local found = {}
for _, condition in ipairs(status.conditions) do
  found[condition.type] = condition
end
local function is(name)
  return found[name] ~= nil and found[name].status == "True"
end
local message = status.message or ""

if is("Stalled") then
  return { status = "Degraded", message = message }
end
if status.phase == "Suspended" then
  return { status = "Suspended", message = message }
end
if is("Ready") then
  if status.rollout ~= nil and status.rollout.phase == "AwaitingPromotion" then
    return { status = "Suspended", message = message }
  end
  if is("Reconciling") then
    return { status = "Progressing", message = message }
  end
  return { status = "Healthy", message = message }
end
-- Ready has the reason of the first that is not True, which for a query without its store is a hub that was not looked at.
local function is_fault(name)
  return found[name] ~= nil and found[name].status == "False" and faults[found[name].reason] == true
end
local faulty = is_fault("Ready") or is_fault("HubReady") or is_fault("DeadLetterSafe") or is_fault("StoreReady") or is_fault("WorkersReady")
if status.phase == "Holding" or faulty then
  return { status = "Degraded", message = message }
end
return { status = "Progressing", message = message }
